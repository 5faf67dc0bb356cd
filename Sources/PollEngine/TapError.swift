public import HostSystem

/// Why a TAP interface cannot be used: what was found, and the command that cures it.
public enum TapError: Error, Sendable, Equatable, CustomStringConvertible {
    /// No interface name: empty, too long, or with a character that names do not have.
    case name(String)
    /// There is no interface of that name. It is never created on the way.
    case missing(String)
    /// The interface is there and is no TAP, or has another set of flags.
    case notATap(String)
    /// This process may not open it.
    case denied(String)
    /// Another process has it open.
    case busy(String)
    /// The kernel has no TUN/TAP driver, or its device node is missing.
    case noDriver
    /// Anything else.
    case other(String, Errno)

    /// Sorts the error number of opening `name` into a case.
    init(opening name: String, _ errno: Errno) {
        switch errno {
        case .notPermitted, .accessDenied: self = .denied(name)
        case .busy: self = .busy(name)
        case .invalidArgument: self = .notATap(name)
        case .noSuchFile, .noSuchDevice, .noDevice: self = .noDriver
        default: self = .other(name, errno)
        }
    }

    /// One line for people.
    public var description: String {
        switch self {
        case .name(let name):
            "\"\(name)\" is no interface name: 1 to 15 characters without / and blanks"
        case .missing(let name):
            "there is no interface \(name); make it with "
                + "\"ip tuntap add dev \(name) mode tap\" and \"ip link set \(name) up\""
        case .notATap(let name):
            "the interface \(name) is no plain TAP interface; "
                + "\"ip -d link show \(name)\" tells what it is"
        case .denied(let name):
            "no permission to open the TAP interface \(name); run with CAP_NET_ADMIN, or make it "
                + "yours with \"ip tuntap add dev \(name) mode tap user $USER\""
        case .busy(let name):
            "the TAP interface \(name) is in use by another process"
        case .noDriver:
            "the TUN/TAP driver is missing: no /dev/net/tun; try \"modprobe tun\""
        case .other(let name, let errno):
            "open the TAP interface \(name): \(errno)"
        }
    }
}

extension Errno {
    /// The device or resource is in use.
    fileprivate static let busy = Errno(16)
    /// The node is there, its driver is not (ENXIO).
    fileprivate static let noDevice = Errno(6)
    /// No such device (ENODEV).
    fileprivate static let noSuchDevice = Errno(19)
}
