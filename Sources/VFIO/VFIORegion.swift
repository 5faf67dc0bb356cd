internal import PCI

/// One region of a VFIO device: a BAR, the ROM or configuration space, as bytes of the device file.
struct VFIORegion: Equatable {
    static let page: UInt64 = 4096

    /// Length in bytes, 0 when the device does not have the region.
    let size: UInt64
    /// Where it starts in the device file.
    let offset: UInt64
    /// The parts that can be mapped, whole pages, ascending, apart from each other.
    let mappable: [Range<UInt64>]
    /// The MSI-X table may be inside a mapped part.
    let coversMessageTable: Bool

    static let absent = VFIORegion(
        size: 0,
        offset: 0,
        mappable: [],
        coversMessageTable: false
    )

    private init(
        size: UInt64,
        offset: UInt64,
        mappable: [Range<UInt64>],
        coversMessageTable: Bool
    ) {
        self.size = size
        self.offset = offset
        self.mappable = mappable
        self.coversMessageTable = coversMessageTable
    }

    /// Takes the kernel's answer apart. A region that does not fit into a file is refused; parts that
    /// do not lie in the region, or are no whole pages, are left to reads and writes (HI-H27).
    init(_ answer: AnswerBytes, index: Int) throws(PCIError) {
        guard let flags = answer.field32(VFIOLayout.regionFlags),
            let first = answer.field32(VFIOLayout.regionCapabilities),
            let size = answer.field64(VFIOLayout.regionSize),
            let offset = answer.field64(VFIOLayout.regionOffset)
        else { throw VFIOCapabilityChain.refusal("the answer for region \(index) is too short") }
        guard offset <= UInt64(Int64.max), size <= UInt64(Int64.max) - offset else {
            throw VFIOCapabilityChain.refusal(
                "region \(index), \(size) bytes at \(offset), does not fit into a file"
            )
        }
        var parts: [Range<UInt64>] = []
        var covers = false
        if flags & VFIOLayout.regionCanBeMapped != 0 { parts = [0..<size] }
        if flags & VFIOLayout.regionHasCapabilities != 0 {
            let chain = try VFIOCapabilityChain(
                answer,
                first: first,
                fixed: VFIOLayout.regionLength,
                of: "region \(index)"
            )
            covers = chain.offset(of: VFIOLayout.messageMappableCapability) != nil
            if let at = chain.offset(of: VFIOLayout.sparseCapability), !parts.isEmpty {
                parts = Self.parts(
                    try VFIOCapabilityChain.pairs(answer, at: at, of: "areas of region \(index)"),
                    in: size
                )
            }
        }
        self.size = size
        self.offset = offset
        mappable = parts.compactMap(Self.wholePages)
        coversMessageTable = covers
    }

    /// The same region without a part that must not be mapped.
    func without(_ hole: Range<UInt64>) -> VFIORegion {
        let start = hole.lowerBound / Self.page * Self.page
        let end = (min(hole.upperBound, size) + Self.page - 1) / Self.page * Self.page
        var rest: [Range<UInt64>] = []
        for part in mappable {
            if part.lowerBound < min(start, part.upperBound) {
                rest.append(part.lowerBound..<min(start, part.upperBound))
            }
            if max(end, part.lowerBound) < part.upperBound {
                rest.append(max(end, part.lowerBound)..<part.upperBound)
            }
        }
        return VFIORegion(
            size: size,
            offset: offset,
            mappable: rest,
            coversMessageTable: coversMessageTable
        )
    }

    /// The mappable part that holds all of `length` bytes at `at`.
    func part(holding at: UInt64, _ length: UInt64) -> Range<UInt64>? {
        mappable.first {
            at >= $0.lowerBound && at < $0.upperBound && length <= $0.upperBound - at
        }
    }

    /// `length` bytes at `at` are inside.
    func holds(_ at: UInt64, _ length: UInt64) -> Bool {
        at <= size && length <= size - at
    }

    private static func parts(_ pairs: [(UInt64, UInt64)], in size: UInt64) -> [Range<UInt64>] {
        var parts: [Range<UInt64>] = []
        for (start, length) in pairs.sorted(by: { $0.0 < $1.0 }) {
            guard length > 0, start <= size, length <= size - start,
                start >= parts.last?.upperBound ?? 0
            else { continue }
            parts.append(start..<start + length)
        }
        return parts
    }

    // A BAR smaller than a page has its page to itself where the kernel lets it be mapped, and its
    // end is never an address that we hand out.
    private static func wholePages(_ part: Range<UInt64>) -> Range<UInt64>? {
        guard part.lowerBound % page == 0, !part.isEmpty else { return nil }
        let end = part.upperBound / page * page
        return end > part.lowerBound ? part.lowerBound..<end : nil
    }
}
