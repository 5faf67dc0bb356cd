import ArgumentParser
import HostSystem
import PCI
import VFIO

/// What a command works on.
enum DeviceTarget: Hashable, CustomStringConvertible {
    /// A function of this machine.
    case pci(PCIAddress)
    /// The management device, emulated in this process.
    case emulated

    /// Reads `0000:03:00.0`, `03:00.0` or `emulated`; anything else is wrong usage (HI-J11).
    static func parse(_ text: String) throws -> DeviceTarget {
        if text == "emulated" { return .emulated }
        if let address = PCIAddress(text) { return .pci(address) }
        for scheme in ["vfio-user:", "vhost-user:", "emulated:"] where text.hasPrefix(scheme) {
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
            "pci/address: '\(text)' is no target: use `emulated` or an address such as"
                + " 0000:03:00.0\(near)"
        )
    }

    /// The target as it is typed.
    var description: String {
        switch self {
        case .pci(let address): "\(address)"
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

    /// Kernel drivers that hand a function to user space.
    static let userDrivers = DriverBinding.userDrivers

    /// The function whose address contains what was typed, or differs in one character.
    private static func nearest(to text: String) -> String? {
        let all = HostTree.live.entriesIfAny(PCIBus.directory)
        let typed = Array(text)
        guard typed.count >= 2 else { return nil }
        return all.first { name in
            if name.contains(text) { return true }
            let other = Array(name)
            return other.count == typed.count
                && zip(other, typed).filter { $0 != $1 }.count == 1
        }
    }
}
