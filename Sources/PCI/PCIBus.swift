internal import CSystemShims
public import HostSystem

/// The PCI functions of this machine.
public enum PCIBus {
    /// What libpci and sysfs know of a function.
    public struct Record: Hashable, Sendable {
        /// Where it is.
        public let address: PCIAddress
        /// Its ids; the revision is not asked for and 0.
        public let identity: PCIIdentity
        /// Vendor and device by name.
        public let name: String
        /// The kernel driver bound to it, `nil` when there is none.
        public let driver: String?
        /// NUMA node, `nil` when the machine does not say.
        public let node: Int?
    }

    /// Looks a function up; `nil` when there is none at that address.
    public static func identify(_ address: PCIAddress) throws(SystemError) -> Record? {
        var raw = shim_pci_identity()
        let status = unsafe shim_pci_identify(
            Int32(truncatingIfNeeded: address.domain),
            Int32(address.bus),
            Int32(address.device),
            Int32(address.function),
            &raw
        )
        do {
            try checked(status, "look up PCI function \(address)")
        } catch {
            if error.errno == .noSuchFile { return nil }
            throw error
        }
        let driver = text(raw.driver)
        return Record(
            address: address,
            identity: PCIIdentity(
                vendor: raw.vendor,
                device: raw.device,
                subsystemVendor: raw.subsystem_vendor,
                subsystem: raw.subsystem_device,
                classCode: raw.class_code,
                revision: 0
            ),
            name: text(raw.name),
            driver: driver.isEmpty ? nil : driver,
            node: raw.numa_node < 0 ? nil : Int(raw.numa_node)
        )
    }

    private static func text<Characters>(_ characters: Characters) -> String {
        unsafe withUnsafeBytes(of: characters) { bytes in
            unsafe String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
        }
    }
}
