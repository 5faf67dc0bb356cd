import ArgumentParser
import HostSystem
import PCI
import VFIO
import VfioUser

/// What a command works on.
enum DeviceTarget: Hashable, CustomStringConvertible {
    /// A function of this machine.
    case pci(PCIAddress)
    /// The device of a vfio-user server, by the path of its socket.
    case vfioUser(path: String)
    /// The management device, emulated in this process.
    case emulated

    /// Reads `0000:03:00.0`, `03:00.0`, `vfio-user:PATH` or `emulated`; anything else is wrong usage
    /// (HI-J11).
    static func parse(_ text: String) throws -> DeviceTarget {
        if text == "emulated" { return .emulated }
        if let address = PCIAddress(text) { return .pci(address) }
        if text.hasPrefix(vfioUserScheme) {
            let path = String(text.dropFirst(vfioUserScheme.count))
            guard (1...longestPath).contains(path.utf8.count) else {
                throw ValidationError(
                    "vfio-user: needs the path of a socket, 1 to \(longestPath) bytes"
                )
            }
            return .vfioUser(path: path)
        }
        for scheme in ["vhost-user:", "emulated:"] where text.hasPrefix(scheme) {
            throw ValidationError("not supported: \(text): no \(scheme.dropLast()) target yet")
        }
        if userDrivers.contains(text) {
            throw ValidationError(
                "bind/driver: '\(text)' is a driver, not a device; the device comes first, the"
                    + " driver after --driver"
            )
        }
        let near = nearest(to: text).map { "; did you mean \($0)?" } ?? ""
        throw ValidationError(
            "pci/address: '\(text)' is no target: use an address such as 0000:03:00.0,"
                + " `vfio-user:PATH` or `emulated`\(near)"
        )
    }

    /// The target as it is typed.
    var description: String {
        switch self {
        case .pci(let address): "\(address)"
        case .vfioUser(let path): "\(Self.vfioUserScheme)\(path)"
        case .emulated: "emulated"
        }
    }

    /// A function of this machine; throws for other targets.
    func address(for operation: String) throws -> PCIAddress {
        guard case .pci(let address) = self else {
            throw PCIError.notSupported("\(operation) of `\(self)`, which no kernel driver holds")
        }
        return address
    }

    /// Opens the device for driving it: nobody else can drive it meanwhile.
    func open(unsafeNoIOMMU: Bool, in tree: HostTree = .live) throws -> any PCIFunction {
        switch self {
        case .emulated:
            let loop = try EventLoop()
            let management = try EmulatedManagement(names: ["device0"], loop: loop) { _, _ in }
            return management.function
        case .vfioUser(let path):
            return try Client(path: path)
        case .pci(let address):
            let record = try PCIBus.find(address, in: tree)
            guard let driver = record.driver, Self.userDrivers.contains(driver) else {
                throw PCIError.refused(
                    HostRefusal(
                        "vfio/driver",
                        "\(address) is bound to \(record.driver ?? "no driver")",
                        remedy: "bind it first: vhost-pci device bind \(address) --driver vfio-pci"
                    )
                )
            }
            return try HostFunctions.open(address, withoutIsolation: unsafeNoIOMMU, in: tree)
        }
    }

    private static let vfioUserScheme = "vfio-user:"

    /// Bytes of the longest path: a socket's address has 108, the last one 0.
    private static let longestPath = 107

    /// Kernel drivers that hand a function to user space.
    static let userDrivers = DriverBinding.userDrivers

    /// The function that was probably meant: by the name of its interface or disk, by an address
    /// with digits left out, or by one that differs in a character.
    static func nearest(to text: String, in tree: HostTree = .live) -> String? {
        let all = tree.entriesIfAny(PCIBus.directory)
        guard text.utf8.count >= 2, !text.contains("/") else { return nil }
        for directory in ["/sys/class/net", "/sys/class/block"] {
            let path = (try? tree.link("\(directory)/\(text)")) ?? ""
            let functions = path.split(separator: "/").compactMap { PCIAddress(String($0)) }
            if let function = functions.last { return "\(function)" }
        }
        let numbers = text.split { $0 == ":" || $0 == "." }.map { Int($0, radix: 16) }
        if let first = all.first(where: { hasNumbers($0, numbers) }) { return first }
        let typed = Array(text)
        return all.first { name in
            if name.contains(text) { return true }
            let other = Array(name)
            return other.count == typed.count
                && zip(other, typed).filter { $0 != $1 }.count == 1
        }
    }

    private static func hasNumbers(_ name: String, _ numbers: [Int?]) -> Bool {
        let own = name.split { $0 == ":" || $0 == "." }.map { Int($0, radix: 16) }
        return numbers.count >= 3 && own.suffix(numbers.count) == numbers[...]
            && (numbers.count == 4 || own.first == 0)
    }
}
