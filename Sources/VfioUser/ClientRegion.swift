internal import HostSystem
internal import PCI

/// A region as its server described it, after all checks (HI-E42): a description that contradicts
/// itself is refused, and nothing of the region is mapped.
struct ClientRegion: Sendable {
    /// Length of the largest region that is believed in: 4 PiB.
    static let largest: UInt64 = 1 << 52
    /// Largest answer that is asked for.
    static let largestAnswer = 1 << 16

    /// Length in bytes, 0 when the device does not have the region.
    let size: UInt64
    /// The parts that can be mapped, as offsets in the region: whole pages, ascending, apart from
    /// each other.
    let areas: [Range<UInt64>]
    /// What they are parts of; `nil` when there are none.
    let file: FileDescriptor?
    /// Where the region begins in the file.
    let fileOffset: UInt64
    /// What a mapping of the file must be aligned to.
    let page: UInt64
    /// The server lets the region be written.
    let isWritable: Bool

    /// Asks for a region, and again when the answer needs more room (VFU-C-03).
    init(_ index: Int, of channel: ClientChannel) throws(PCIError) {
        let operation = "the description of region \(index)"
        var room = RegionInfo.size
        for _ in 0..<3 {
            let request = RegionInfo(argumentSize: UInt32(room), index: UInt32(index))
            let frame = try channel.exchange(
                ClientRequest(
                    command: .deviceGetRegionInfo,
                    fixed: request.encoded,
                    reply: RegionInfo.size...room,
                    replyDescriptors: 32
                ),
                operation
            )
            guard let info = RegionInfo(frame.payload), info.index == UInt32(index) else {
                throw Self.refusal(index, "it is that of another region")
            }
            guard let needed = Int(exactly: info.argumentSize),
                (RegionInfo.size...Self.largestAnswer).contains(needed)
            else { throw Self.refusal(index, "it states a size of \(info.argumentSize) bytes") }
            if needed > room {
                room = needed
                continue
            }
            try self.init(info, frame, index)
            return
        }
        throw Self.refusal(index, "it needs more room each time")
    }

    private init(_ info: RegionInfo, _ frame: Frame, _ index: Int) throws(PCIError) {
        guard info.length <= Self.largest else {
            throw Self.refusal(index, "\(info.length) bytes are absurd")
        }
        size = info.length
        fileOffset = info.offset
        isWritable = info.flags.contains(.write)
        let sparse = try Self.sparseAreas(info, frame.payload, index)
        guard info.flags.contains(.mappable) || frame.descriptors.isEmpty else {
            throw Self.refusal(index, "a file comes with a region that cannot be mapped")
        }
        guard frame.descriptors.count <= 1 else {
            throw Self.refusal(index, "\(frame.descriptors.count) files come with it")
        }
        // Without a file every access goes through the server, as QEMU has it. So it does with a
        // file that asks another program for its pages: that one may let us wait for ever (HI-D10).
        guard let file = frame.descriptors.first, file.isSharedMemory, size > 0 else {
            self.file = nil
            areas = []
            page = 4096
            return
        }
        let status = try presenting { () throws(SystemError) in try file.status() }
        page = max(4096, UInt64(status.pageSize))
        let whole = size % page == 0 ? [0..<size] : []
        areas = try Self.checked(sparse ?? whole, info, status, page, index)
        self.file = file
    }

    /// The part that holds `length` bytes at `offset`.
    func area(holding offset: UInt64, _ length: UInt64) -> Range<UInt64>? {
        areas.first {
            $0.lowerBound <= offset && offset < $0.upperBound && length <= $0.upperBound - offset
        }
    }

    // MARK: - Checks

    /// The areas of the sparse-mmap capability; `nil` when there is no such capability.
    private static func sparseAreas(
        _ info: RegionInfo,
        _ payload: [UInt8],
        _ index: Int
    ) throws(PCIError) -> [Range<UInt64>]? {
        guard info.flags.contains(.capabilities), info.capabilityOffset != 0 else { return nil }
        var areas: [Range<UInt64>]?
        var next = Int(info.capabilityOffset)
        // Capabilities do not overlap, so that more than fit are a loop.
        var left = payload.count / Self.capabilityHeader
        while next != 0 {
            guard left > 0 else { throw refusal(index, "its capabilities do not end") }
            left -= 1
            guard next >= RegionInfo.size, next <= payload.count - Self.capabilityHeader,
                let identifier = payload.field(UInt16.self, at: next),
                let following = payload.field(UInt32.self, at: next + 4)
            else { throw refusal(index, "a capability at \(next) is outside it") }
            if identifier == SparseAreas.identifier {
                guard areas == nil, let sparse = SparseAreas(payload, at: next) else {
                    throw refusal(index, "its list of areas is cut, wraps, or comes twice")
                }
                areas = sparse.areas
            }
            next = Int(following)
        }
        return areas
    }

    private static let capabilityHeader = 8

    private static func checked(
        _ areas: [Range<UInt64>],
        _ info: RegionInfo,
        _ status: FileStatus,
        _ page: UInt64,
        _ index: Int
    ) throws(PCIError) -> [Range<UInt64>] {
        var result: [Range<UInt64>] = []
        for area in areas.sorted(by: { $0.lowerBound < $1.lowerBound }) where !area.isEmpty {
            let text =
                "its area of \(area.upperBound - area.lowerBound) bytes at \(area.lowerBound)"
            guard area.upperBound <= info.length else {
                throw refusal(index, "\(text) leaves the region")
            }
            let (end, wraps) = info.offset.addingReportingOverflow(area.upperBound)
            guard !wraps, end <= status.size else {
                throw refusal(index, "\(text) leaves the file of \(status.size) bytes")
            }
            guard (info.offset &+ area.lowerBound) % page == 0, area.lowerBound % page == 0,
                area.upperBound % page == 0
            else { throw refusal(index, "\(text) is not whole pages of \(page) bytes") }
            guard let last = result.last else {
                result.append(area)
                continue
            }
            guard last.upperBound <= area.lowerBound else {
                throw refusal(index, "\(text) meets another one")
            }
            if last.upperBound == area.lowerBound {
                result[result.count - 1] = last.lowerBound..<area.upperBound
            } else {
                result.append(area)
            }
        }
        return result
    }

    private static func refusal(_ index: Int, _ detail: String) -> PCIError {
        .refused(
            HostRefusal(
                "region/info",
                "the server's description of region \(index) cannot be used: \(detail)",
                remedy: "report it to whoever makes the server"
            )
        )
    }
}
