import Glibc
import HostSystem

/// What came of reading a file of the kernel: that it is not there says something else than that it
/// may not be read.
enum HostFile: Equatable {
    case text(String)
    case absent
    case closed(String)

    init(_ path: String, in tree: HostTree) {
        do {
            self = .text(try tree.text(path))
        } catch  where Self.isAbsence(error.errno) {
            self = .absent
        } catch {
            self = .closed("\(error)")
        }
    }

    /// The text, where there is one.
    var text: String? {
        if case .text(let text) = self { return text }
        return nil
    }

    static func isAbsence(_ errno: Errno) -> Bool {
        errno == .noSuchFile || errno == Errno(ENOTDIR)
    }
}

/// Likewise for a directory.
enum HostDirectory: Equatable {
    case names([String])
    case absent
    case closed(String)

    init(_ path: String, in tree: HostTree) {
        do {
            self = .names(try tree.entries(path))
        } catch  where HostFile.isAbsence(error.errno) {
            self = .absent
        } catch {
            self = .closed("\(error)")
        }
    }
}

/// What the kernel says of the process that asks: rights and limits.
struct ProcessFacts {
    static let statusPath = "/proc/self/status"
    static let limitsPath = "/proc/self/limits"

    /// A right that counts here, by its number in linux's `capability.h`.
    enum Right: UInt64 {
        case overrideFileModes = 1
        case lockMemory = 14
        case administer = 21
        case raiseLimits = 24
    }

    /// A soft and a hard limit; `UInt64.max` for none.
    struct Limit: Equatable {
        var soft: UInt64
        var hard: UInt64
    }

    private let status: [String: String]
    private let limits: [Substring]

    init(in tree: HostTree) {
        var status: [String: String] = [:]
        for line in (tree.textIfAny(Self.statusPath) ?? "").split(separator: "\n") {
            guard let colon = line.firstIndex(of: ":") else { continue }
            let value = line[line.index(after: colon)...].drop { $0 == " " || $0 == "\t" }
            status[String(line[..<colon])] = String(value)
        }
        self.status = status
        limits = (tree.textIfAny(Self.limitsPath) ?? "").split(separator: "\n")
    }

    /// A field of the status file.
    subscript(_ name: String) -> String? { status[name] }

    /// The effective user; `nil` when it is not told.
    var user: UInt32? { ids("Uid").dropFirst().first }

    /// Effective and supplementary groups.
    var groups: [UInt32] { ids("Gid").dropFirst().prefix(1) + ids("Groups") }

    private func ids(_ name: String) -> [UInt32] {
        (status[name] ?? "").split { $0 == " " || $0 == "\t" }.compactMap { UInt32($0) }
    }

    /// The process has a right; `nil` when that is not told.
    func has(_ right: Right) -> Bool? {
        guard let set = status["CapEff"].flatMap({ UInt64($0, radix: 16) }) else { return nil }
        return set >> right.rawValue & 1 == 1
    }

    /// A limit by its name in the file; `nil` when it is not told.
    func limit(_ name: String) -> Limit? {
        guard let line = limits.first(where: { $0.hasPrefix(name) }) else { return nil }
        let values = line.dropFirst(name.count).split(separator: " ").map { word in
            word == "unlimited" ? UInt64.max : UInt64(word)
        }
        guard values.count >= 2, let soft = values[0], let hard = values[1] else { return nil }
        return Limit(soft: soft, hard: hard)
    }

    /// May read and write a file by owner and mode; `nil` when the process is not known.
    func mayUse(_ file: HostFileAttributes) -> Bool? {
        guard let user, let overrides = has(.overrideFileModes) else { return nil }
        if overrides { return true }
        let shift: UInt32 = file.owner == user ? 6 : groups.contains(file.group) ? 3 : 0
        return file.mode >> shift & 6 == 6
    }
}

/// A list of numbers as the kernel writes it: `0-3,8`.
struct NumberList {
    /// More than that in one list is no list of CPUs or nodes.
    static let most = 65536

    let numbers: Set<Int>

    /// `nil` for what is no list; an empty text is an empty list.
    init?(_ text: String) {
        var numbers: Set<Int> = []
        for part in text.split(separator: ",") {
            let ends = part.split(separator: "-", omittingEmptySubsequences: false).map { Int($0) }
            guard let first = ends.first ?? nil, let last = ends.last ?? nil, ends.count <= 2,
                first >= 0, last >= first, last < Self.most
            else { return nil }
            numbers.formUnion(first...last)
        }
        self.numbers = numbers
    }
}
