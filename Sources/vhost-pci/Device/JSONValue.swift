/// A value of a JSON object whose keys depend on what is described.
enum JSONValue: Hashable, Codable {
    case number(UInt64)
    case flag(Bool)
    case text(String)

    func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        switch self {
        case .number(let value): try container.encode(value)
        case .flag(let value): try container.encode(value)
        case .text(let value): try container.encode(value)
        }
    }

    init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        if let value = try? container.decode(Bool.self) {
            self = .flag(value)
        } else if let value = try? container.decode(UInt64.self) {
            self = .number(value)
        } else {
            self = .text(try container.decode(String.self))
        }
    }
}
