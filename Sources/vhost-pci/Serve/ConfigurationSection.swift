/// A group of keys that is being read: what is wrong goes to the list of problems, and what is right
/// comes back.
struct ConfigurationSection {
    let path: String
    let line: Int
    private let entries: [String: ConfigurationValue.Entry]
    private let problems: ConfigurationProblems

    /// Takes a group of keys; a key that is not `allowed` is a problem, with the nearest one offered
    /// (HI-J22, HI-J23).
    init(
        _ entries: [ConfigurationValue.Entry],
        line: Int,
        path: String,
        allowed: [String],
        hint: ((String) -> String?)? = nil,
        _ problems: ConfigurationProblems
    ) {
        self.path = path
        self.line = line
        self.problems = problems
        var known: [String: ConfigurationValue.Entry] = [:]
        for entry in entries {
            let key = path.isEmpty ? entry.key : "\(path).\(entry.key)"
            if !allowed.contains(entry.key) {
                let reason = hint?(entry.key) ?? "unknown key"
                problems.add(
                    .key,
                    entry.line,
                    key,
                    reason + Nearest.offer(for: entry.key, among: allowed)
                )
            } else if known[entry.key] != nil {
                problems.add(.duplicate, entry.line, key, "stands there more than once")
            } else {
                known[entry.key] = entry
            }
        }
        self.entries = known
    }

    /// True when the key is there, right or wrong.
    func has(_ key: String) -> Bool { entries[key] != nil }

    /// Where a key stands, or the group.
    func line(of key: String) -> Int { entries[key]?.line ?? line }

    /// The full name of a key.
    func name(_ key: String) -> String { path.isEmpty ? key : "\(path).\(key)" }

    /// A single value; `nil` when the key is not there, or is no such thing.
    func text(_ key: String) -> String? {
        guard let entry = entries[key] else { return nil }
        guard case .text(let text, let line) = entry.value else {
            problems.add(
                .type,
                entry.value.line,
                name(key),
                "is \(entry.value.form), but takes a single value"
            )
            return nil
        }
        guard !text.isEmpty else {
            problems.add(.type, line, name(key), "has no value")
            return nil
        }
        return text
    }

    /// A whole number in a range.
    func number(_ key: String, in range: ClosedRange<Int>) -> Int? {
        guard let text = text(key) else { return nil }
        guard let number = Int(text), text.first?.isNumber == true else {
            problems.add(
                .type,
                line(of: key),
                name(key),
                "'\(text)' is no whole number; \(Self.words(range)) are allowed"
            )
            return nil
        }
        guard range.contains(number) else {
            problems.add(
                .range,
                line(of: key),
                name(key),
                "\(number) is out of range; \(Self.words(range)) are allowed"
            )
            return nil
        }
        return number
    }

    /// One of a set of words.
    func word<Word: RawRepresentable & CaseIterable>(_ key: String, _ type: Word.Type) -> Word?
    where Word.RawValue == String {
        guard let text = text(key) else { return nil }
        if let word = Word(rawValue: text) { return word }
        let all = Word.allCases.map(\.rawValue)
        problems.add(
            .range,
            line(of: key),
            name(key),
            "'\(text)' is none of \(all.joined(separator: ", "))"
                + Nearest.offer(for: text, among: all)
        )
        return nil
    }

    /// A value that `parse` makes something of.
    func value<Value>(_ key: String, _ what: String, _ parse: (String) -> Value?) -> Value? {
        guard let text = text(key) else { return nil }
        if let value = parse(text) { return value }
        problems.add(.type, line(of: key), name(key), "'\(text)' is not \(what)")
        return nil
    }

    /// The path of a socket (HI-J20).
    func socketPath(_ key: String) -> String? {
        guard let text = text(key) else { return nil }
        return checked(text, name(key), line(of: key))
    }

    /// A list of values, each of which `parse` makes something of; a single value is a list of one.
    func list<Value>(_ key: String, _ parse: (String, String, Int) -> Value?) -> [Value]? {
        guard let entry = entries[key] else { return nil }
        let items: [ConfigurationValue]
        switch entry.value {
        case .list(let list, _): items = list
        case .text: items = [entry.value]
        case .map:
            problems.add(
                .type,
                entry.value.line,
                name(key),
                "is a group of keys, but takes a list"
            )
            return nil
        }
        return items.enumerated().compactMap { index, item in
            let name = "\(name(key))[\(index)]"
            guard case .text(let text, let line) = item, !text.isEmpty else {
                problems.add(.type, item.line, name, "is \(item.form), but takes a single value")
                return nil
            }
            return parse(text, name, line)
        }
    }

    /// A list of socket paths.
    func socketPaths(_ key: String) -> [String]? {
        list(key) { text, name, line in checked(text, name, line) }
    }

    private func checked(_ path: String, _ name: String, _ line: Int) -> String? {
        guard path.utf8.count <= SocketPath.longest, !path.utf8.contains(0) else {
            problems.add(
                .range,
                line,
                name,
                "a socket path has at most \(SocketPath.longest) bytes, this one \(path.utf8.count)"
            )
            return nil
        }
        return path
    }

    /// The entries below a key, group by group; `nil` for another form.
    func groups(_ key: String) -> [(entries: [ConfigurationValue.Entry], line: Int)]? {
        guard let entry = entries[key] else { return nil }
        guard case .list(let list, _) = entry.value else {
            problems.add(
                .type,
                entry.value.line,
                name(key),
                "is \(entry.value.form), but takes a list"
            )
            return nil
        }
        return list.enumerated().compactMap { index, item in
            guard case .map(let entries, let line) = item else {
                problems.add(
                    .type,
                    item.line,
                    "\(name(key))[\(index)]",
                    "is \(item.form), but takes a group of keys"
                )
                return nil
            }
            return (entries, line)
        }
    }

    /// The keys below a key.
    func group(_ key: String) -> (entries: [ConfigurationValue.Entry], line: Int)? {
        guard let entry = entries[key] else { return nil }
        guard case .map(let entries, let line) = entry.value else {
            problems.add(
                .type,
                entry.value.line,
                name(key),
                "is \(entry.value.form), but takes a group of keys"
            )
            return nil
        }
        return (entries, line)
    }

    private static func words(_ range: ClosedRange<Int>) -> String {
        "\(range.lowerBound) to \(range.upperBound)"
    }
}

/// All that is wrong, so that one look at a file tells everything.
final class ConfigurationProblems {
    private(set) var all: [ConfigurationProblem] = []

    func add(_ kind: ConfigurationProblem.Kind, _ line: Int, _ key: String?, _ text: String) {
        all.append(ConfigurationProblem(kind, line: line, key: key, text))
    }
}

/// The word that was probably meant.
enum Nearest {
    /// `; did you mean X?`, or nothing.
    static func offer(for word: String, among words: [String]) -> String {
        let typed = Array(word.lowercased().prefix(64))
        let best = words.map { ($0, distance(typed, Array($0))) }.min { $0.1 < $1.1 }
        if let (near, distance) = best, distance <= max(1, near.count / 3) {
            return "; did you mean \(near)?"
        }
        return ""
    }

    /// How many characters have to be put in, taken out or changed.
    static func distance(_ one: [Character], _ other: [Character]) -> Int {
        var row = Array(0...other.count)
        for (index, character) in one.enumerated() {
            var diagonal = row[0]
            row[0] = index + 1
            for place in other.indices {
                let change = diagonal + (other[place] == character ? 0 : 1)
                diagonal = row[place + 1]
                row[place + 1] = min(change, min(row[place], diagonal) + 1)
            }
        }
        return row[other.count]
    }
}
