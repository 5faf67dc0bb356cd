public import HostSystem

/// Memory that a driver shares with its device: rings and buffers, at addresses the device knows.
///
/// Control path only; not thread safe: one driver owns one arena.
public final class DMAArena {
    /// The pages; a transport maps them for the device once.
    public let mapping: Mapping
    /// The file behind the pages, for transports that pass a descriptor.
    public let file: MemoryFile
    /// Address of the first byte in the device's address space.
    public let deviceAddress: UInt64

    private var free: [Range<Int>]

    /// Makes an arena of `size` bytes (a multiple of 4096) that the device sees at `deviceAddress`.
    ///
    /// `hugePageShift` is 0 for ordinary pages or 21 for pages of 2 MiB, of which `size` must then be
    /// a multiple; all of them are taken at once, so that a lack of them is an error here.
    public init(
        size: Int,
        deviceAddress: UInt64,
        name: String = "dma",
        hugePageShift: UInt32 = 0
    ) throws(SystemError) {
        file = try MemoryFile(name: name, size: size, hugePageShift: hugePageShift)
        mapping = try file.map()
        if hugePageShift > 0 { try mapping.populate(at: 0, length: size) }
        self.deviceAddress = deviceAddress
        free = [0..<size]
    }

    /// An arena over pages that are mapped already, all of the file's in the order of the mapping.
    public init(file: MemoryFile, mapping: Mapping, deviceAddress: UInt64) {
        self.file = file
        self.mapping = mapping
        self.deviceAddress = deviceAddress
        free = [0..<mapping.length]
    }

    /// The pages of another arena as a device sees them that reaches them through a translation of
    /// its own, at `deviceAddress`. Only one of the two arenas may give out buffers.
    public init(sharing other: DMAArena, deviceAddress: UInt64) {
        file = other.file
        mapping = other.mapping
        self.deviceAddress = deviceAddress
        free = [0..<other.file.size]
    }

    /// Takes `size` zeroed bytes aligned to `alignment` (a power of two, at least 64 is used);
    /// `nil` when there is no such hole.
    public func allocate(_ size: Int, alignment: Int = 64) -> DMABuffer? {
        let step = max(64, alignment)
        let length = (max(1, size) + 63) & ~63
        for (index, hole) in free.enumerated() {
            let start = (hole.lowerBound + step - 1) & ~(step - 1)
            guard start + length <= hole.upperBound else { continue }
            var rest: [Range<Int>] = []
            if hole.lowerBound < start { rest.append(hole.lowerBound..<start) }
            if start + length < hole.upperBound { rest.append((start + length)..<hole.upperBound) }
            free.replaceSubrange(index...index, with: rest)
            let buffer = unsafe DMABuffer(
                pointer: mapping.address + start,
                deviceAddress: deviceAddress + UInt64(start),
                length: size,
                extent: start..<(start + length),
                mapping: mapping
            )
            unsafe buffer.pointer.initializeMemory(as: UInt8.self, repeating: 0, count: length)
            return buffer
        }
        return nil
    }

    /// Gives a buffer back. The device must not use it any more.
    public func release(_ buffer: DMABuffer) {
        let at = free.firstIndex { $0.lowerBound >= buffer.extent.upperBound } ?? free.endIndex
        free.insert(buffer.extent, at: at)
        if at + 1 < free.count, free[at].upperBound == free[at + 1].lowerBound {
            free.replaceSubrange(
                at...(at + 1),
                with: [free[at].lowerBound..<free[at + 1].upperBound]
            )
        }
        if at > 0, free[at - 1].upperBound == free[at].lowerBound {
            free.replaceSubrange(
                (at - 1)...at,
                with: [free[at - 1].lowerBound..<free[at].upperBound]
            )
        }
    }
}

/// A piece of an arena.
@safe
public struct DMABuffer {
    // Safety: `pointer` lies in `mapping`, which this value keeps alive.
    /// Where the driver sees it.
    @unsafe public let pointer: UnsafeMutableRawPointer
    /// Where the device sees it.
    public let deviceAddress: UInt64
    /// Bytes asked for.
    public let length: Int

    fileprivate let extent: Range<Int>
    private let mapping: Mapping

    fileprivate init(
        pointer: UnsafeMutableRawPointer,
        deviceAddress: UInt64,
        length: Int,
        extent: Range<Int>,
        mapping: Mapping
    ) {
        unsafe self.pointer = unsafe pointer
        self.deviceAddress = deviceAddress
        self.length = length
        self.extent = extent
        self.mapping = mapping
    }

    /// Copies bytes in, at most as many as fit behind `offset`.
    public func write(_ bytes: some Collection<UInt8>, at offset: Int = 0) {
        guard offset >= 0, offset < length else { return }
        let target = unsafe UnsafeMutableRawBufferPointer(
            start: pointer + offset,
            count: length - offset
        )
        unsafe target.copyBytes(from: bytes.prefix(length - offset))
    }

    /// Copies at most `count` bytes out, from `offset`.
    public func read(at offset: Int = 0, count: Int) -> [UInt8] {
        guard offset >= 0, offset < length, count > 0 else { return [] }
        return unsafe [UInt8](
            UnsafeRawBufferPointer(start: pointer + offset, count: min(count, length - offset))
        )
    }
}
