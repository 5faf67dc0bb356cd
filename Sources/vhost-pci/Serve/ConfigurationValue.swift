import Yams

/// A value of a configuration with the line where it stands; 0 where there are no lines.
indirect enum ConfigurationValue {
    /// A key with its value.
    struct Entry {
        let key: String
        let line: Int
        let value: ConfigurationValue
    }

    case text(String, line: Int)
    case list([ConfigurationValue], line: Int)
    case map([Entry], line: Int)

    /// Where it stands.
    var line: Int {
        switch self {
        case .text(_, let line), .list(_, let line), .map(_, let line): line
        }
    }

    /// What it is, for people.
    var form: String {
        switch self {
        case .text: "a single value"
        case .list: "a list"
        case .map: "a group of keys"
        }
    }

    /// Most bytes of a file.
    static let sizeLimit = 1 << 20
    /// Most values, those that stand behind an alias counted each time.
    private static let valueLimit = 10_000

    /// Reads one YAML document; throws `ConfigurationProblem`.
    static func parse(yaml text: String) throws -> ConfigurationValue {
        do {
            guard let node = try Yams.compose(yaml: text) else {
                return .map([], line: 1)
            }
            var budget = valueLimit
            return try value(node, line: 1, &budget)
        } catch let problem as ConfigurationProblem {
            throw problem
        } catch let error as YamlError {
            throw problem(error)
        }
    }

    private static func value(
        _ node: Node,
        line: Int,
        _ budget: inout Int
    ) throws -> ConfigurationValue {
        budget -= 1
        let line = node.mark?.line ?? line
        guard budget > 0 else {
            throw ConfigurationProblem(.syntax, line: line, "more than \(valueLimit) values")
        }
        switch node {
        case .scalar(let scalar):
            return .text(scalar.string, line: line)
        case .sequence(let sequence):
            return .list(try sequence.map { try value($0, line: line, &budget) }, line: line)
        case .mapping(let mapping):
            let entries = try mapping.map { pair in
                guard case .scalar(let key) = pair.key else {
                    throw ConfigurationProblem(
                        .syntax,
                        line: pair.key.mark?.line ?? line,
                        "a key is a single word"
                    )
                }
                let keyLine = key.mark?.line ?? line
                return Entry(
                    key: key.string,
                    line: keyLine,
                    value: try value(pair.value, line: keyLine, &budget)
                )
            }
            return .map(entries, line: line)
        case .alias:
            throw ConfigurationProblem(.syntax, line: line, "an alias that leads nowhere")
        }
    }

    private static func problem(_ error: YamlError) -> ConfigurationProblem {
        switch error {
        case .scanner(_, let text, let mark, _), .parser(_, let text, let mark, _),
            .composer(_, let text, let mark, _):
            ConfigurationProblem(.syntax, line: mark.line, "column \(mark.column): \(text)")
        case .duplicatedKeysInMapping(let keys, let context):
            ConfigurationProblem(
                .duplicate,
                line: context.mark.line,
                key: keys.sorted().joined(separator: ", "),
                "stands there more than once"
            )
        case .reader(let text, _, _, _):
            ConfigurationProblem(.syntax, line: 0, text)
        default:
            ConfigurationProblem(.syntax, line: 0, "the text cannot be read as YAML")
        }
    }
}

/// One thing that is wrong with a configuration.
struct ConfigurationProblem: Error, Codable, Equatable {
    /// What kinds of problems there are; the error id is `config/` and this word.
    enum Kind: String, Codable {
        case file
        case syntax
        case key
        case type
        case range
        case missing
        case duplicate
        case conflict
    }

    var id: String
    /// Left out where there are no lines.
    var line: Int?
    /// As `devices[1].mtu`; left out for the text as a whole.
    var key: String?
    var text: String

    init(_ kind: Kind, line: Int, key: String? = nil, _ text: String) {
        id = "config/\(kind.rawValue)"
        self.line = line > 0 ? line : nil
        self.key = key
        self.text = text
    }

    /// One line for people: `FILE:LINE: KEY: TEXT (ID)`.
    func sentence(in source: String) -> String {
        let place = line.map { "\(source):\($0)" } ?? source
        let subject = key.map { "\($0): " } ?? ""
        return "\(place): \(subject)\(text) (\(id))"
    }
}
