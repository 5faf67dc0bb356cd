import GuestMemory
import HostSystem
import VirtioSpec
import Virtqueue

@testable import PollEngine

/// One split ring as a driver writes it, by hand and byte by byte, so that these tests do not lean
/// on the project's own driver side.
@safe
final class DriverRing {
    // Safety: all offsets are inside the mapping that the owner keeps; one thread uses the ring.
    let configuration: QueueConfiguration
    let size: Int
    let bufferSize: Int
    private let base: UnsafeMutableRawPointer
    private let buffers: UnsafeMutableRawPointer
    private let guestBase: UInt64
    private var availableIndex: UInt16 = 0
    private var usedIndex: UInt16 = 0
    private var freeHeads: [UInt16]

    /// Bytes that a ring with its buffers needs.
    static func footprint(size: Int, bufferSize: Int) -> Int {
        buffersOffset(size) + size * bufferSize
    }

    private static func availableOffset(_ size: Int) -> Int { 16 * size }
    private static func usedOffset(_ size: Int) -> Int { (18 * size + 6 + 4095) & ~4095 }
    private static func buffersOffset(_ size: Int) -> Int {
        (usedOffset(size) + 8 * size + 6 + 4095) & ~4095
    }

    init(
        at offset: Int,
        in mapping: Mapping,
        guestBase: UInt64,
        size: Int,
        bufferSize: Int,
        features: QueueFeatures
    ) {
        self.size = size
        self.bufferSize = bufferSize
        self.guestBase = guestBase + UInt64(offset)
        unsafe base = mapping.address + offset
        unsafe buffers = base + DriverRing.buffersOffset(size)
        freeHeads = (0..<UInt16(size)).reversed()
        configuration = QueueConfiguration(
            size: UInt16(size),
            descriptorArea: guestBase + UInt64(offset),
            driverArea: guestBase + UInt64(offset + DriverRing.availableOffset(size)),
            deviceArea: guestBase + UInt64(offset + DriverRing.usedOffset(size)),
            features: features
        )
    }

    var free: Int { freeHeads.count }

    private var available: UnsafeMutableRawPointer {
        unsafe base + DriverRing.availableOffset(size)
    }
    private var used: UnsafeMutableRawPointer { unsafe base + DriverRing.usedOffset(size) }

    func buffer(_ head: UInt16) -> UnsafeMutableRawPointer {
        unsafe buffers + Int(head) * bufferSize
    }

    /// Takes a free descriptor, describes its buffer; `nil` when all are with the device.
    func prepare(length: Int, isWritable: Bool) -> UInt16? {
        guard let head = freeHeads.popLast() else { return nil }
        let descriptor = unsafe base + 16 * Int(head)
        let address = guestBase + UInt64(DriverRing.buffersOffset(size) + Int(head) * bufferSize)
        unsafe SharedCell.storeRelaxed64(descriptor, address)
        let flags: UInt64 = isWritable ? 2 : 0
        unsafe SharedCell.storeRelaxed64(descriptor + 8, UInt64(length) | flags << 32)
        return head
    }

    /// Puts a head into the available ring, not visible yet.
    func enqueue(_ head: UInt16) {
        let slot = unsafe available + 4 + 2 * (Int(availableIndex) % size)
        unsafe SharedCell.storeRelaxed16(slot, head)
        availableIndex &+= 1
    }

    /// Shows what was enqueued.
    func publish() {
        unsafe SharedCell.storeRelease16(available + 2, availableIndex)
    }

    /// Breaks the ring: an available index that runs ahead by more than its size.
    func jump() {
        unsafe SharedCell.storeRelease16(available + 2, availableIndex &+ UInt16(size) &+ 7)
    }

    /// The next used element; its descriptor is free again.
    func reap() -> (head: UInt16, length: Int)? {
        let index = unsafe SharedCell.loadAcquire16(used + 2)
        guard index != usedIndex else { return nil }
        let element = unsafe used + 4 + 8 * (Int(usedIndex) % size)
        let head = UInt16(truncatingIfNeeded: unsafe SharedCell.loadRelaxed32(element))
        let length = Int(unsafe SharedCell.loadRelaxed32(element + 4))
        usedIndex &+= 1
        freeHeads.append(head)
        return (head, length)
    }

    /// Chains with the device: published and not reaped.
    var outstanding: Int { Int(availableIndex &- usedIndex) }

    /// What the device has returned so far, as GET_VRING_BASE would tell: the start of the next
    /// device on this ring. Another thread may drive the ring meanwhile.
    var position: UInt16 { unsafe SharedCell.loadAcquire16(used + 2) }

    /// True when the device asks for notifications (flag form).
    var wantsKick: Bool { unsafe SharedCell.loadRelaxed16(used) & 1 == 0 }
}

/// A virtio-net driver of one queue pair in this process: the peer of an engine's port.
@safe
final class PeerRig {
    // Safety: the rings lie in `mapping`, which this object and the memory table keep.
    static let headerSize = 12
    let mapping: Mapping
    let table: MemoryTable
    let receive: DriverRing
    let transmit: DriverRing
    let call: EventFD

    init(
        size: Int = 64,
        bufferSize: Int = 2048,
        features: QueueFeatures = []
    ) throws {
        let part = (DriverRing.footprint(size: size, bufferSize: bufferSize) + 4095) & ~4095
        mapping = try Mapping.anonymous(length: 2 * part)
        let guestBase: UInt64 = 0x4000_0000
        let region = unsafe MemoryRegion(
            start: guestBase,
            size: UInt64(2 * part),
            host: mapping.address
        )
        table = try MemoryTable([region].compactMap { $0 }, owners: [mapping])
        let make = { [mapping] offset in
            DriverRing(
                at: offset,
                in: mapping,
                guestBase: guestBase,
                size: size,
                bufferSize: bufferSize,
                features: features
            )
        }
        receive = make(0)
        transmit = make(part)
        call = try EventFD()
    }

    /// A queue pair on these rings, as a device has it, from where the one before it stopped.
    func port(mergeable: Bool = true) throws -> PeerPort {
        var receiving = receive.configuration
        receiving.nextAvailable = receive.position
        var transmitting = transmit.configuration
        transmitting.nextAvailable = transmit.position
        return PeerPort(
            receive: try SplitDeviceQueue(transmitting, memory: table),
            transmit: try SplitDeviceQueue(receiving, memory: table),
            mergeable: mergeable,
            receiveDoorbell: Doorbell(eventDescriptor: call.descriptor.rawValue),
            transmitDoorbell: Doorbell(eventDescriptor: call.descriptor.rawValue)
        )
    }

    /// The same, ready to be handed over.
    func pairs(
        mergeable: Bool = true,
        isReceiveEnabled: Bool = true,
        isTransmitEnabled: Bool = true
    ) throws -> PortPairs {
        var pairs = PortPairs()
        pairs.append(
            try port(mergeable: mergeable),
            isReceiveEnabled: isReceiveEnabled,
            isTransmitEnabled: isTransmitEnabled
        )
        return pairs
    }

    /// Posts at most `limit` free receive buffers; returns how many.
    @discardableResult
    func post(_ limit: Int = .max) -> Int {
        var count = 0
        while count < limit,
            let head = receive.prepare(length: receive.bufferSize, isWritable: true)
        {
            receive.enqueue(head)
            count += 1
        }
        receive.publish()
        return count
    }

    /// Transmits one frame; false when no descriptor is free.
    @discardableResult
    func send(_ frame: [UInt8]) -> Bool {
        let length = PeerRig.headerSize + frame.count
        while transmit.reap() != nil {}
        guard let head = transmit.prepare(length: length, isWritable: false) else { return false }
        let buffer = unsafe transmit.buffer(head)
        unsafe buffer.initializeMemory(as: UInt8.self, repeating: 0, count: PeerRig.headerSize)
        let target = unsafe UnsafeMutableRawBufferPointer(
            start: buffer + PeerRig.headerSize,
            count: frame.count
        )
        unsafe target.copyBytes(from: frame)
        transmit.enqueue(head)
        transmit.publish()
        return true
    }

    /// The next frame that arrived, its buffer posted again.
    func receiveFrame() -> [UInt8]? {
        guard let (head, length) = receive.reap() else { return nil }
        let buffer = unsafe receive.buffer(head)
        let count = max(0, length - PeerRig.headerSize)
        let frame = unsafe [UInt8](
            UnsafeRawBufferPointer(start: buffer + PeerRig.headerSize, count: count)
        )
        post(1)
        return frame
    }
}

/// Frames for tests.
enum Frame {
    /// A unicast station address of one byte.
    static func station(_ number: UInt8) -> [UInt8] { [2, 0, 0, 0, 0, number] }

    static let broadcast = [UInt8](repeating: 0xFF, count: 6)

    /// A frame of `count` bytes: addresses, type, a 32-bit number at 16, filler.
    static func make(
        to destination: [UInt8],
        from source: [UInt8],
        number: UInt32 = 0,
        count: Int = 64
    ) -> [UInt8] {
        var frame = destination + source + [0x88, 0xB5, 0, 0]
        for shift in stride(from: 0, to: 32, by: 8) {
            frame.append(UInt8(truncatingIfNeeded: number >> UInt32(shift)))
        }
        while frame.count < count { frame.append(UInt8(truncatingIfNeeded: frame.count)) }
        return frame
    }

    /// The number of a frame made here.
    static func number(of frame: [UInt8]) -> UInt32 {
        (16..<20).reversed().reduce(0) { $0 << 8 | UInt32(frame[$1]) }
    }
}
