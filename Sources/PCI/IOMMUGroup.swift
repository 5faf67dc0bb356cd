public import HostSystem

/// Functions that the IOMMU cannot tell apart: whoever drives one of them drives them all.
public struct IOMMUGroup: Hashable, Sendable {
    /// One function of a group.
    public struct Member: Hashable, Sendable {
        /// Where it is.
        public let address: PCIAddress
        /// The driver bound to it.
        public let driver: String?
        /// Class, subclass and programming interface; 0 when it cannot be read.
        public let classCode: UInt32

        /// A bridge between PCI buses stays with its driver without harm to the group.
        public var isBridge: Bool { classCode >> 8 == 0x0604 }

        /// Keeps the group from being handed to a user (linux: vfio_dev_viable): bound to a driver
        /// that does its own memory access.
        public var isInTheWay: Bool {
            guard let driver, !isBridge else { return false }
            return !["vfio-pci", "pci-stub", "pcieport"].contains(driver)
        }
    }

    /// Number of the group.
    public let number: Int
    /// All its functions, in the order of their addresses.
    public let members: [Member]
    /// Kind of the default domain: `DMA`, `DMA-FQ`, `identity`.
    public let type: String?

    /// Functions reach memory through the IOMMU's tables while the kernel's own drivers have them, so
    /// that physical addresses, as UIO uses them, reach nothing.
    public var isTranslated: Bool { type?.hasPrefix("DMA") ?? false }

    /// Finds the group of a function; `nil` without one.
    public init?(of address: PCIAddress, in tree: HostTree) {
        let link = tree.linkName("\(PCIBus.directory)/\(address)/iommu_group")
        guard let number = link.flatMap({ Int($0) }) else { return nil }
        let directory = "/sys/kernel/iommu_groups/\(number)"
        self.number = number
        type = tree.textIfAny("\(directory)/type")
        members = tree.entriesIfAny("\(directory)/devices").compactMap { PCIAddress($0) }
            .sorted()
            .map { address in
                let place = "\(PCIBus.directory)/\(address)"
                let code = tree.textIfAny("\(place)/class") ?? ""
                return Member(
                    address: address,
                    driver: tree.linkName("\(place)/driver"),
                    classCode: UInt32(code.dropFirst(2), radix: 16) ?? 0
                )
            }
    }
}
