import Virtio

/// Which error was thrown, without its details: for `#expect(throws:)`.
enum VirtioErrorMatch: Error, Equatable {
    case features
    case queueRefused
    case resetTimeout
    case configurationUnstable
    case configurationRange
    case needsReset
    case deviceGone
    case controlTimeout
    case command
    case notSupported
    case other(String)

    /// Runs something and throws the match of its error.
    static func of(_ work: () throws -> Void) throws(VirtioErrorMatch) {
        do {
            try work()
        } catch {
            guard let error = error as? VirtioError else { throw .other("\(error)") }
            switch error {
            case .features: throw .features
            case .queueRefused: throw .queueRefused
            case .resetTimeout: throw .resetTimeout
            case .configurationUnstable: throw .configurationUnstable
            case .configurationRange: throw .configurationRange
            case .needsReset: throw .needsReset
            case .deviceGone: throw .deviceGone
            case .controlTimeout: throw .controlTimeout
            case .command: throw .command
            case .notSupported: throw .notSupported
            default: throw .other("\(error)")
            }
        }
    }
}
