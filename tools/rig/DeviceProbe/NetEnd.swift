import Glibc
import GuestMemory
import HostSystem
import PCI
import Virtio
import VirtioSpec
import Virtqueue

/// A virtio network function with one buffer in either queue, at any address one likes: the driver of
/// the product would not post these.
final class NetEnd {
    /// `struct virtio_net_hdr` with VERSION_1 (virtio 1.3 §5.1.6).
    static let headerLength = 12
    private static let frameLength = headerLength + 60
    private static let bufferLength = 2048
    private static let ringSize: UInt16 = 8

    /// The status after a trial, in words.
    var state: String {
        guard let status = try? transport.status() else { return "no status" }
        return status.contains(.needsReset) ? "it asks for a reset" : "status \(status.rawValue)"
    }

    private let transport: PCITransport
    private let receiveRing: OneBufferRing
    private let transmitRing: OneBufferRing

    init(_ function: any PCIFunction) throws {
        transport = try PCITransport(function: function)
        let arena = try transport.makeArena(size: 1 << 16)
        receiveRing = try OneBufferRing(arena, size: Self.ringSize, length: Self.bufferLength)
        transmitRing = try OneBufferRing(arena, size: Self.ringSize, length: Self.frameLength)
    }

    /// A broadcast of the ethertype for local experiments, behind a header of zeroes.
    static func frame(marker: UInt8) -> [UInt8] {
        [UInt8](repeating: 0, count: headerLength) + [UInt8](repeating: 0xff, count: 6)
            + [0x02, 0, 0, 0, 0, 1, 0x88, 0xb5] + [UInt8](repeating: marker, count: 46)
    }

    /// Brings the device up with empty rings.
    func start() throws {
        receiveRing.clear()
        transmitRing.clear()
        _ = try DriverHandshake.run(transport, wanted: [.accessPlatform]) {
            (_) throws(VirtioError) in
            try transport.enableQueue(0, receiveRing.configuration, vector: nil)
            try transport.enableQueue(1, transmitRing.configuration, vector: nil)
        }
    }

    func stop() throws { try transport.reset() }

    /// Posts the receive buffer.
    func receive(at address: UInt64?) throws {
        receiveRing.post(at: address, isWritable: true)
        try transport.notifyQueue(0)
    }

    /// Sends the frame.
    func transmit(from address: UInt64?) throws {
        transmitRing.fill(Self.frame(marker: 0x3a))
        transmitRing.post(at: address, isWritable: false)
        try transport.notifyQueue(1)
    }

    /// What came into the receive buffer, if anything did.
    func received() -> [UInt8]? { receiveRing.used() }
}

// From one end to the other.
extension NetEnd {
    /// A frame in mapped memory has to arrive whole.
    static func cross(
        _ transmitter: NetEnd,
        _ receiver: NetEnd,
        _ when: String
    ) throws {
        let frame = NetEnd.frame(marker: 0x3a)
        guard let got = try deliver(transmitter, receiver) else {
            throw ProbeError.lost(when)
        }
        // Headers may differ: the receiver's has a buffer count.
        guard got.dropFirst(NetEnd.headerLength) == frame.dropFirst(NetEnd.headerLength) else {
            throw ProbeError.damaged(when)
        }
        print("a good frame crosses \(when)")
    }

    /// Starts both, sends one frame and waits for it, at most a second; nil when nothing came.
    static func deliver(
        _ transmitter: NetEnd,
        _ receiver: NetEnd,
        transmitFrom source: UInt64? = nil,
        receiveAt target: UInt64? = nil
    ) throws -> [UInt8]? {
        try receiver.start()
        try transmitter.start()
        try receiver.receive(at: target)
        try transmitter.transmit(from: source)
        let deadline = Deadline(milliseconds: 1000)
        while !deadline.hasPassed {
            if let frame = receiver.received() { return frame }
            usleep(500)
        }
        return nil
    }
}

/// A split ring (virtio 1.3 §2.7) of which one descriptor is used, once.
struct OneBufferRing {
    private let size: UInt16
    private let descriptors: DMABuffer
    private let available: DMABuffer
    private let usedRing: DMABuffer
    private let buffer: DMABuffer

    init(_ arena: DMAArena, size: UInt16, length: Int) throws {
        guard let descriptors = arena.allocate(SplitRingLayout.descriptorAreaSize(size)),
            let available = arena.allocate(SplitRingLayout.driverAreaSize(size)),
            let used = arena.allocate(SplitRingLayout.deviceAreaSize(size)),
            let buffer = arena.allocate(length)
        else { throw VirtioError.noRoom("a ring") }
        self.size = size
        self.descriptors = descriptors
        self.available = available
        usedRing = used
        self.buffer = buffer
    }

    var configuration: QueueConfiguration {
        QueueConfiguration(
            size: size,
            descriptorArea: descriptors.deviceAddress,
            driverArea: available.deviceAddress,
            deviceArea: usedRing.deviceAddress
        )
    }

    func clear() {
        for part in [descriptors, available, usedRing, buffer] {
            part.write([UInt8](repeating: 0, count: part.length))
        }
    }

    func fill(_ bytes: [UInt8]) { buffer.write(bytes) }

    /// Shows the device the buffer, or another address of the same length. The device is told by a
    /// write to its registers afterwards, which orders the stores before it.
    func post(at address: UInt64?, isWritable: Bool) {
        let flags = isWritable ? SplitDescriptor.writeFlag : 0
        let target = address ?? buffer.deviceAddress
        descriptors.write(Self.bytes(target, 8) + Self.bytes(UInt64(buffer.length), 4))
        descriptors.write(Self.bytes(UInt64(flags), 2), at: 12)
        available.write(Self.bytes(1, 2), at: SplitRingLayout.indexOffset)
    }

    /// The used buffer's bytes, as many as the device says, once it says so.
    func used() -> [UInt8]? {
        guard usedRing.read(at: SplitRingLayout.indexOffset, count: 1) != [0] else { return nil }
        let length = usedRing.read(at: SplitRingLayout.ringOffset + 4, count: 4)
        let count = length.reversed().reduce(0) { $0 << 8 | Int($1) }
        return buffer.read(count: count)
    }

    private static func bytes(_ value: UInt64, _ count: Int) -> [UInt8] {
        (0..<count).map { UInt8(truncatingIfNeeded: value >> (8 * UInt64($0))) }
    }
}
