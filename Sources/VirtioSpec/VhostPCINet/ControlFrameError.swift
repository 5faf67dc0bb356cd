/// Why a control message of a vhost-pci-net device cannot be taken. `id` is stable.
public enum ControlFrameError: Error, Equatable, Sendable, CustomStringConvertible {
    /// Shorter than class and command, or a class or command that nobody defined (HI-G1, HI-G32).
    case unknown(frameLength: Int, class: UInt8?, command: UInt8?)
    /// The message has another length than its own fields say (HI-G10, VPN-D-21).
    case cut(expected: Int, actual: Int)
    /// The command is the other side's to send (HI-G30, VPN-D-21).
    case direction(class: UInt8, command: UInt8)
    /// An information version or entry size that this layout cannot be (VPN-M-14).
    case layout(version: UInt16, entrySize: UInt16)
    /// No region, or more than the table may have.
    case regionCount(UInt32)
    /// No queue announced, or an entry that does not belong to the announced number (HI-G5).
    case queueCount(announced: UInt32, described: UInt32)

    /// The error id that counters, reports and tests share.
    public var id: String {
        switch self {
        case .unknown: "vpci/unknown"
        case .cut, .layout: "vpci/cut"
        case .direction: "vpci/order"
        case .regionCount: "mem/count"
        case .queueCount: "vpci/vq-count"
        }
    }

    /// One line: error id first.
    public var description: String {
        switch self {
        case .unknown(let length, let type, let command):
            "\(id): \(length) bytes, class \(type.map(String.init) ?? "none"),"
                + " command \(command.map(String.init) ?? "none")"
        case .cut(let expected, let actual): "\(id): \(actual) bytes instead of \(expected)"
        case .direction(let type, let command):
            "\(id): class \(type), command \(command) is for the other side to send"
        case .layout(let version, let entrySize):
            "\(id): information version \(version) with entries of \(entrySize) bytes"
        case .regionCount(let count): "\(id): \(count) regions"
        case .queueCount(let announced, let described):
            "\(id): \(described) queues described, \(announced) announced"
        }
    }
}
