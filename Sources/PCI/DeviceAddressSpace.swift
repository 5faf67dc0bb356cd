/// Addresses for arenas: where a driver lets its device see memory.
///
/// From 4 GiB where there is room, so that no address is 0 and none meets the interrupt range of x86
/// IOMMUs, and below 2^39, which every IOMMU can translate, unless an IOMMU says what it can.
public struct DeviceAddressSpace: Sendable {
    private static let first: UInt64 = 1 << 32
    private static let end: UInt64 = 1 << 39
    /// Arenas start on 2 MiB boundaries and so never touch.
    private static let step: UInt64 = 1 << 21

    private let ranges: [ClosedRange<UInt64>]
    private var taken: [Range<UInt64>] = []

    /// Addresses that any IOMMU can translate.
    public init() {
        ranges = [Self.first...(Self.end - 1)]
    }

    /// Addresses inside the ranges that an IOMMU offers; the parts above 4 GiB come first, then those
    /// below, never the page at 0.
    public init(_ offered: [ClosedRange<UInt64>]) {
        let high = offered.compactMap { range -> ClosedRange<UInt64>? in
            range.upperBound < Self.first
                ? nil : max(Self.first, range.lowerBound)...range.upperBound
        }
        let low = offered.compactMap { range -> ClosedRange<UInt64>? in
            let first = max(Self.step, range.lowerBound)
            let last = min(range.upperBound, Self.first - 1)
            return first <= last ? first...last : nil
        }
        ranges = high + low
    }

    /// Takes a hole of `size` bytes and an untouched step behind it; `nil` when there is none.
    public mutating func take(_ size: UInt64) -> UInt64? {
        guard size > 0, size < UInt64.max / 4 else { return nil }
        let extent = (size / Self.step + 2) * Self.step
        for range in ranges {
            if let start = hole(extent, in: range) {
                let at = taken.firstIndex { $0.lowerBound > start } ?? taken.endIndex
                taken.insert(start..<start + extent, at: at)
                return start
            }
        }
        return nil
    }

    /// Gives back what `take` returned.
    public mutating func release(_ start: UInt64) {
        taken.removeAll { $0.lowerBound == start }
    }

    // A range may end at the last address there is: nothing here may be computed past its end.
    private func hole(_ extent: UInt64, in range: ClosedRange<UInt64>) -> UInt64? {
        var start = range.lowerBound
        for other in taken where other.upperBound > start {
            guard other.lowerBound < start || other.lowerBound - start < extent else { break }
            start = other.upperBound
        }
        let rest = start % Self.step
        if rest != 0 {
            let (aligned, wraps) = start.addingReportingOverflow(Self.step - rest)
            guard !wraps else { return nil }
            start = aligned
        }
        guard start <= range.upperBound, range.upperBound - start >= extent - 1,
            start <= UInt64.max - extent
        else { return nil }
        return start
    }
}
