internal import HostSystem
internal import PCI

/// The device's view of memory: a container of type 1, or an address space of iommufd.
protocol VFIOAddressSpace: AnyObject {
    /// What it can map.
    var limits: VFIOMappingLimits { get throws(PCIError) }
    /// The limit on locked memory holds for all processes of a user together, not for each.
    var isLimitShared: Bool { get }
    /// Maps pages for reading and writing.
    func map(_ memory: Mapping, at iova: UInt64) throws(SystemError)
    /// Takes pages away and returns how many bytes it were.
    func unmap(_ iova: UInt64, size: UInt64) throws(SystemError) -> UInt64
}

/// What an IOMMU can map.
struct VFIOMappingLimits: Equatable {
    /// Addresses, ascending.
    var ranges: [ClosedRange<UInt64>]
    /// What addresses and lengths are multiples of.
    var granule: UInt64
    /// How many mappings are left; `nil` when the kernel does not say.
    var mappingsLeft: UInt32?

    /// All of `length` bytes at `start` are inside one range.
    func hold(_ start: UInt64, _ length: UInt64) -> Bool {
        length > 0
            && ranges.contains {
                $0.contains(start) && length - 1 <= $0.upperBound - start
            }
    }

    /// Takes apart what VFIO_IOMMU_GET_INFO answered. Ranges that are upside down are left out.
    init(_ answer: AnswerBytes) throws(PCIError) {
        guard let flags = answer.field32(VFIOLayout.iommuFlags),
            let sizes = answer.field64(VFIOLayout.iommuPageSizes)
        else { throw VFIOCapabilityChain.refusal("the answer for the IOMMU is too short") }
        // Without the flag the field means nothing, and every IOMMU of VFIO has pages of 4 KiB.
        let pages = flags & VFIOLayout.iommuHasPageSizes != 0 ? sizes : VFIORegion.page
        try self.init(ranges: [], pageSizes: pages)
        guard flags & VFIOLayout.iommuHasCapabilities != 0,
            let first = answer.field32(VFIOLayout.iommuCapabilities)
        else {
            // Kernels before 5.4 name no ranges: what every IOMMU can do, without the place where
            // x86 has its interrupts.
            ranges = [0...0xfedf_ffff, 0xfef0_0000...((1 << 39) - 1)]
            return
        }
        let chain = try VFIOCapabilityChain(
            answer,
            first: first,
            fixed: VFIOLayout.iommuCapabilities + 4,
            of: "the IOMMU"
        )
        if let at = chain.offset(of: VFIOLayout.rangeCapability) {
            ranges = Self.ranges(
                try VFIOCapabilityChain.pairs(answer, at: at, of: "address ranges")
            )
        }
        if let at = chain.offset(of: VFIOLayout.mappingsCapability) {
            mappingsLeft = answer.field32(at + VFIOLayout.capabilityLength)
        }
    }

    /// Takes apart what iommufd answered.
    init(_ answer: IOMMUFDRanges) throws(PCIError) {
        var pairs: [(UInt64, UInt64)] = []
        var index = 0
        while index + 1 < answer.pairs.count {
            pairs.append((answer.pairs[index], answer.pairs[index + 1]))
            index += 2
        }
        try self.init(ranges: Self.ranges(pairs), pageSizes: max(1, answer.alignment))
    }

    private init(ranges: [ClosedRange<UInt64>], pageSizes: UInt64) throws(PCIError) {
        let smallest = pageSizes & (~pageSizes &+ 1)
        guard smallest > 0, smallest <= 1 << 30 else {
            throw VFIOCapabilityChain.refusal("the IOMMU names no page size that can be used")
        }
        self.ranges = ranges
        granule = max(VFIORegion.page, smallest)
        mappingsLeft = nil
    }

    private static func ranges(_ pairs: [(UInt64, UInt64)]) -> [ClosedRange<UInt64>] {
        pairs.filter { $0.0 <= $0.1 }.map { $0.0...$0.1 }
            .sorted { $0.lowerBound < $1.lowerBound }
    }
}
