import GuestMemory
import HostSystem
import RingSupport
import VirtioSpec
import Virtqueue

@testable import PollEngine

/// The two rings of a network device, and the hands of a device that may do anything to them.
final class DeviceRig {
    static let bufferSize = 2048
    private static let transmitBase: UInt64 = 0x1000_0000
    private static let buffersOffset: UInt64 = 0x10_0000

    /// The device's receive ring.
    let receive: SplitRingRig
    /// The device's transmit ring.
    let transmit: SplitRingRig
    let interrupt: EventFD
    let kick: EventFD
    var pair: PacketPairConfiguration
    /// Receive buffers that the device has taken.
    private var received: UInt16 = 0
    /// Transmitted chains that the device has taken.
    private var transmitted: UInt16 = 0

    init(
        size: UInt16 = 8,
        mergeable: Bool = true,
        features: QueueFeatures = [],
        hasInterrupt: Bool = true
    ) throws {
        let length = 0x20_0000
        let transmitArea = SplitRingRig.Area(Self.transmitBase, length)
        receive = try SplitRingRig(
            size: size,
            features: features,
            areas: [SplitRingRig.Area(SplitRingRig.base, length)]
        )
        transmit = try SplitRingRig(size: size, features: features, areas: [transmitArea])
        interrupt = try EventFD()
        kick = try EventFD()
        let memory = try MemoryTable(
            receive.table.all + transmit.table.all,
            owners: [receive.table, transmit.table]
        )
        pair = PacketPairConfiguration(
            receive: receive.configuration,
            transmit: transmit.configuration,
            receiveBuffers: PacketBuffers(
                address: SplitRingRig.base + Self.buffersOffset,
                size: Self.bufferSize,
                count: Int(size)
            ),
            transmitBuffers: PacketBuffers(
                address: Self.transmitBase + Self.buffersOffset,
                size: Self.bufferSize,
                count: Int(size)
            ),
            memory: memory,
            isMergeable: mergeable,
            receiveDoorbell: Doorbell(eventDescriptor: kick.descriptor.rawValue),
            transmitDoorbell: Doorbell(eventDescriptor: kick.descriptor.rawValue),
            wakeup: hasInterrupt ? interrupt : nil
        )
    }

    /// Empty buffers that the device may still fill.
    var posted: Int { Int(receive.availableIndex &- received) }

    /// The next empty buffer: its head and where it is.
    func takeBuffer() -> (head: UInt16, address: UInt64)? {
        guard posted > 0 else { return nil }
        let head = receive.slot(received)
        received &+= 1
        return (head, receive.descriptor(head).address)
    }

    /// Puts bytes, network header included, into one buffer and claims to have written `length`.
    @discardableResult
    func deliver(_ bytes: [UInt8], length: Int? = nil) -> Bool {
        guard let (head, address) = takeBuffer() else { return false }
        receive.write(bytes, at: address)
        receive.use(UInt32(head), UInt32(length ?? bytes.count))
        return true
    }

    /// Delivers a frame with a good header.
    @discardableResult
    func deliver(frame: [UInt8]) -> Bool {
        deliver(Self.header() + frame)
    }

    /// Delivers a frame cut into pieces, of which the header claims `count` or tells the truth.
    func deliver(pieces: [[UInt8]], claiming count: Int? = nil) {
        for (index, piece) in pieces.enumerated() {
            let head = index == 0 ? Self.header(buffers: count ?? pieces.count) : []
            deliver(head + piece)
        }
    }

    /// The next frame that was transmitted, with its network header; its buffer is given back.
    func takeTransmitted(givingBack: Bool = true) -> [UInt8]? {
        guard transmit.availableIndex != transmitted else { return nil }
        let head = transmit.slot(transmitted)
        transmitted &+= 1
        let descriptor = transmit.descriptor(head)
        let bytes = transmit.read(descriptor.address, Int(descriptor.length))
        if givingBack { transmit.use(UInt32(head)) }
        return bytes
    }

    /// The next frame that was transmitted, with the head of its buffer, which is kept.
    func keepTransmitted() -> (head: UInt16, bytes: [UInt8])? {
        guard transmit.availableIndex != transmitted else { return nil }
        let head = transmit.slot(transmitted)
        guard let bytes = takeTransmitted(givingBack: false) else { return nil }
        return (head, bytes)
    }

    /// Twelve bytes of network header.
    static func header(
        buffers: Int = 1,
        flags: UInt8 = 0,
        gso: UInt8 = 0,
        length: UInt16 = 0,
        start: UInt16 = 0
    ) -> [UInt8] {
        [
            flags, gso, UInt8(length & 0xFF), UInt8(length >> 8), 0, 0, UInt8(start & 0xFF),
            UInt8(start >> 8), 0, 0, UInt8(buffers & 0xFF), UInt8(buffers >> 8),
        ]
    }
}

extension ChainBurst {
    /// A burst of frames that lie in memory of the test.
    static func of(_ frames: [[UInt8]], in memory: UnsafeMutableRawBufferPointer) -> ChainBurst {
        var burst = ChainBurst()
        var offset = 0
        for (index, frame) in frames.enumerated() {
            let part = unsafe UnsafeMutableRawBufferPointer(rebasing: memory[offset...])
            unsafe part.copyBytes(from: frame)
            guard let start = part.baseAddress else { continue }
            unsafe burst.segments[index] = Segment(pointer: start, length: UInt32(frame.count))
            unsafe burst.entries[index] = BurstEntry(
                firstSegment: UInt32(index),
                segmentCount: 1,
                byteCount: UInt32(frame.count),
                head: 0
            )
            offset += frame.count
        }
        burst.count = frames.count
        burst.segmentCount = frames.count
        return burst
    }
}
