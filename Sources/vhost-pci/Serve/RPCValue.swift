import FoundationEssentials

/// Any JSON value.
enum RPCValue: Hashable, Codable {
    case null
    case flag(Bool)
    case integer(Int64)
    case number(Double)
    case text(String)
    case list([RPCValue])
    case object([String: RPCValue])

    /// Deepest nesting that is read.
    static let depthLimit = 16

    init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        if container.decodeNil() {
            self = .null
        } else if let value = try? container.decode(Bool.self) {
            self = .flag(value)
        } else if let value = try? container.decode(Int64.self) {
            self = .integer(value)
        } else if let value = try? container.decode(Double.self) {
            self = .number(value)
        } else if let value = try? container.decode(String.self) {
            self = .text(value)
        } else if let value = try? container.decode([RPCValue].self) {
            self = .list(value)
        } else {
            self = .object(try container.decode([String: RPCValue].self))
        }
    }

    func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        switch self {
        case .null: try container.encodeNil()
        case .flag(let value): try container.encode(value)
        case .integer(let value): try container.encode(value)
        case .number(let value): try container.encode(value)
        case .text(let value): try container.encode(value)
        case .list(let value): try container.encode(value)
        case .object(let value): try container.encode(value)
        }
    }

    /// Reads one value. Throws `RPCError` for what is no JSON, or nested too deeply: the nesting is
    /// looked at first, so that nobody's brackets become our stack.
    static func parse(_ bytes: some Collection<UInt8>) throws(RPCError) -> RPCValue {
        guard let text = String(validating: bytes, as: UTF8.self), !text.utf8.contains(0) else {
            throw RPCError(.parse, "the request is not UTF-8 text")
        }
        guard depth(text.utf8) <= depthLimit else { throw RPCError(.tooDeep) }
        do {
            return try JSONDecoder().decode(RPCValue.self, from: Data(text.utf8))
        } catch {
            throw RPCError(.parse, "the request is no JSON value")
        }
    }

    /// How deep brackets outside of strings are nested.
    private static func depth(_ bytes: String.UTF8View) -> Int {
        var depth = 0
        var deepest = 0
        var isInString = false
        var isEscaped = false
        for byte in bytes {
            if isEscaped {
                isEscaped = false
            } else if isInString {
                if byte == UInt8(ascii: "\\") { isEscaped = true }
                if byte == UInt8(ascii: "\"") { isInString = false }
            } else if byte == UInt8(ascii: "\"") {
                isInString = true
            } else if byte == UInt8(ascii: "[") || byte == UInt8(ascii: "{") {
                depth += 1
                deepest = max(deepest, depth)
            } else if byte == UInt8(ascii: "]") || byte == UInt8(ascii: "}") {
                depth -= 1
            }
        }
        return deepest
    }

    /// The value of something that can be encoded.
    init(encoding object: some Encodable) throws {
        self = try JSONDecoder().decode(RPCValue.self, from: try JSONEncoder().encode(object))
    }

    /// One line, keys in alphabetical order.
    var line: [UInt8] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        // Every case can be written but for a number that is none, and none is ever read or made.
        let bytes = (try? encoder.encode(self)).map { Array($0) } ?? Array("null".utf8)
        return bytes + [UInt8(ascii: "\n")]
    }

    /// The text, if it is one.
    var text: String? {
        if case .text(let text) = self { text } else { nil }
    }

    /// The members, if it is an object.
    var members: [String: RPCValue]? {
        if case .object(let members) = self { members } else { nil }
    }

    /// As a configuration has it: everything that is no list or object is a text.
    var configuration: ConfigurationValue {
        switch self {
        case .null: .text("", line: 0)
        case .flag(let value): .text("\(value)", line: 0)
        case .integer(let value): .text("\(value)", line: 0)
        case .number(let value): .text("\(value)", line: 0)
        case .text(let value): .text(value, line: 0)
        case .list(let list): .list(list.map(\.configuration), line: 0)
        case .object(let members):
            .map(
                members.sorted { $0.key < $1.key }.map { key, value in
                    .init(key: key, line: 0, value: value.configuration)
                },
                line: 0
            )
        }
    }
}
