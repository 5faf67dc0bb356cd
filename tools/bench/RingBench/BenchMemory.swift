internal import CRingBaseline
internal import GuestMemory
internal import HostSystem
internal import PollEngine
internal import VirtioSpec
internal import Virtqueue

/// Sizes that all measurements share.
enum BenchShape {
    /// Entries of each ring.
    static var ringSize: Int { @_noLocks get { 256 } }
    /// Bytes between two buffers: 37 lines, an odd number, so that they do not fall into the same
    /// sets of the cache.
    static var stride: Int { @_noLocks get { 37 * 64 } }
}

/// The memory that both implementations work on: two rings and their buffers at fixed offsets of
/// one mapping, so that no run depends on where a heap put something.
@safe
final class BenchMemory {
    // Safety: all offsets lie inside `mapping`, which lives as long as this object.
    static let start: UInt64 = 0x1_0000_0000

    private static let ringArea = 16384
    private static let transmitBuffers = 2 * ringArea
    private static let bufferArea = BenchShape.ringSize * BenchShape.stride
    private static let receiveBuffers = transmitBuffers + bufferArea
    private static let privateBuffers = receiveBuffers + bufferArea
    private static let length = (privateBuffers + bufferArea + (2 << 20) - 1) & ~((2 << 20) - 1)

    /// Bytes of a page. Huge ones are taken where the machine has some: with ordinary pages so many
    /// buffers do not fit into the address translation cache.
    let pageSize: Int
    private let mapping: Mapping
    private let table: MemoryTable

    /// Lays buffers of frames of `size` bytes down in the transmit ring, empty ones in the other.
    init(size: Int) throws {
        let huge = try? MemoryFile(name: "bench", size: Self.length, hugePageShift: 21).map()
        pageSize = huge == nil ? 4096 : 2 << 20
        mapping = try huge ?? MemoryFile(name: "bench", size: Self.length).map()
        let region = unsafe MemoryRegion(
            start: Self.start,
            size: UInt64(Self.privateBuffers),
            host: mapping.address
        )
        table = try MemoryTable(region.map { [$0] } ?? [], owners: [mapping])
        unsafe mapping.address.initializeMemory(as: UInt8.self, repeating: 0, count: Self.length)
        for index in 0..<BenchShape.ringSize {
            let sent = Self.transmitBuffers + index * BenchShape.stride
            let free = Self.receiveBuffers + index * BenchShape.stride
            store(
                SplitDescriptor(address: Self.start + UInt64(sent), length: UInt32(12 + size)),
                ring: 0,
                index
            )
            store(
                SplitDescriptor(address: Self.start + UInt64(free), length: 2048, flags: 2),
                ring: 1,
                index
            )
            for position in 0..<size {
                unsafe (mapping.address + sent + 12 + position).storeBytes(
                    of: UInt8(truncatingIfNeeded: position),
                    as: UInt8.self
                )
            }
        }
    }

    private func store(_ descriptor: SplitDescriptor, ring: Int, _ index: Int) {
        let base = unsafe mapping.address + ring * Self.ringArea
        unsafe (base + 16 * index).storeBytes(of: descriptor.address, as: UInt64.self)
        unsafe (base + 16 * index + 8).storeBytes(of: descriptor.high, as: UInt64.self)
        unsafe (base + 8192 + 4 + 2 * index).storeBytes(of: UInt16(index), as: UInt16.self)
    }

    /// Where packets are copied to by a dequeue with copy.
    var target: UnsafeMutableRawPointer { unsafe mapping.address + Self.privateBuffers }

    /// A frame that the transmit ring sends.
    func frame(_ index: Int) -> UnsafeMutablePointer<UInt8> {
        let at = Self.transmitBuffers + index * BenchShape.stride + 12
        return unsafe (mapping.address + at).assumingMemoryBound(to: UInt8.self)
    }

    /// Both rings empty, from index 0, notifications unwanted.
    func reset() {
        for ring in 0..<2 {
            let base = unsafe mapping.address + ring * Self.ringArea
            unsafe SharedCell.storeRelaxed16(base + 8192, 1)
            unsafe SharedCell.storeRelaxed16(base + 8194, 0)
            unsafe SharedCell.storeRelaxed16(base + 12290, 0)
        }
    }

    /// Plays both drivers: makes all entries of both rings available again.
    @inline(__always)
    func refill(_ index: UInt16) {
        unsafe SharedCell.storeRelease16(mapping.address + 8194, index)
        unsafe SharedCell.storeRelease16(mapping.address + Self.ringArea + 8194, index)
    }

    /// Our device of both rings, from index 0.
    func port() throws -> PeerPort {
        PeerPort(
            receive: try SplitDeviceQueue(configuration(0), memory: table),
            transmit: try SplitDeviceQueue(configuration(1), memory: table),
            mergeable: true,
            receiveDoorbell: .none,
            transmitDoorbell: .none
        )
    }

    /// The baseline's device of one ring, from index 0.
    func baseline(_ ring: Int) -> baseline_ring {
        let base = unsafe mapping.address + ring * Self.ringArea
        return unsafe baseline_ring(
            descriptors: UnsafePointer(base.assumingMemoryBound(to: UInt8.self)),
            available: UnsafePointer((base + 8192).assumingMemoryBound(to: UInt8.self)),
            used: (base + 12288).assumingMemoryBound(to: UInt8.self),
            region_start: Self.start,
            region_size: UInt64(Self.privateBuffers),
            region_host: mapping.address.assumingMemoryBound(to: UInt8.self),
            size: UInt16(BenchShape.ringSize),
            next_available: 0,
            next_used: 0,
            notified: 0,
            broken: 0,
            packets: 0,
            bytes: 0
        )
    }

    /// True when the frames in the private buffers, or behind the headers in the receive buffers,
    /// are those that were sent: a bench that copies nothing would be fast.
    func isIntact(_ size: Int, inReceiveBuffers: Bool, count: Int) -> Bool {
        for index in 0..<count {
            let at =
                inReceiveBuffers
                ? Self.receiveBuffers + index * BenchShape.stride + 12
                : Self.privateBuffers + index * BenchShape.stride
            for position in 0..<size {
                let byte = unsafe (mapping.address + at + position).load(as: UInt8.self)
                guard byte == UInt8(truncatingIfNeeded: position) else { return false }
            }
        }
        return true
    }

    /// Forgets the frames that were copied, so that the next check sees only new ones.
    func spoil() {
        unsafe (mapping.address + Self.receiveBuffers).initializeMemory(
            as: UInt8.self,
            repeating: 0xEE,
            count: 2 * Self.bufferArea
        )
    }

    private func configuration(_ ring: Int) -> QueueConfiguration {
        let base = Self.start + UInt64(ring * Self.ringArea)
        return QueueConfiguration(
            size: UInt16(BenchShape.ringSize),
            descriptorArea: base,
            driverArea: base + 8192,
            deviceArea: base + 12288
        )
    }
}
