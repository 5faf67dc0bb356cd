import GuestMemory
import HostSystem
import VhostUser
import VirtioSpec
import Virtqueue

/// The driver's half of a virtio-net queue pair: two rings and their buffers in one memory file,
/// as a peer of ours uses it.
///
/// Guest addresses differ from this process's own addresses on purpose, so that the other side has
/// to translate both kinds.
@safe
final class NetRings {
    // Safety: every pointer is inside `mapping`, which lives as long as this object.
    static let ringSize: UInt16 = 256
    static let bufferSize = 2048
    /// virtio 1.3 §5.1.6: 12 bytes with VERSION_1, mergeable buffers or not.
    static let headerSize = 12
    static let guestAddress: UInt64 = 0x1_0000_0000

    let file: MemoryFile
    let mapping: Mapping
    /// Set-ups with guest addresses, receive ring first.
    let configurations: [QueueConfiguration]
    /// Frames whose used length ends inside the network header, `net/short-header`.
    private(set) var shortHeaders: UInt64 = 0
    /// Frames in no buffer, or in several: `net/num-buffers`. Each fits one, so a merged one is none
    /// of ours.
    private(set) var bufferCounts: UInt64 = 0

    /// Whose rings these are: other protocols' frames to others, such as a multicast that a switch
    /// floods, are passed over then. Without it every frame is judged.
    var station: MACAddress?
    /// Frames that were passed over.
    private(set) var foreign: UInt64 = 0

    private static let ringArea = 16384
    private static let ringsSize = 2 * ringArea
    private static let size = ringsSize + 2 * Int(ringSize) * bufferSize

    private let isMergeable: Bool
    /// Buffers still to come of a merged frame that was dropped.
    private var mergedRest = 0
    private var receiveQueue: SplitDriverQueue
    private var transmitQueue: SplitDriverQueue
    private var receiveBufferOfHead = [Int](repeating: 0, count: Int(ringSize))
    private var transmitBufferOfHead = [Int](repeating: 0, count: Int(ringSize))
    private var freeTransmitBuffers = Array(0..<Int(ringSize))

    /// Makes the memory and both rings; `features` are those acknowledged to the device.
    init(features: FeatureBits) throws {
        isMergeable = features.contains(.netMergeableBuffers)
        file = try MemoryFile(name: "peer", size: Self.size)
        mapping = try file.map()
        guard
            let region = unsafe MemoryRegion(
                start: Self.guestAddress,
                size: UInt64(Self.size),
                host: mapping.address
            )
        else { throw QueueError.area }
        let memory = try MemoryTable([region], owners: [mapping])
        configurations = (0..<2).map { index in
            let base = Self.guestAddress + UInt64(index * Self.ringArea)
            return QueueConfiguration(
                size: Self.ringSize,
                descriptorArea: base,
                driverArea: base + 8192,
                deviceArea: base + 12288,
                features: QueueFeatures(features)
            )
        }
        receiveQueue = try SplitDriverQueue(configurations[0], memory: memory)
        transmitQueue = try SplitDriverQueue(configurations[1], memory: memory)
        receiveQueue.suppressInterrupts()
        transmitQueue.suppressInterrupts()
        for buffer in 0..<Int(Self.ringSize) { postReceive(buffer) }
        receiveQueue.publish()
    }

    /// Why a ring broke, `nil` while both run.
    var error: QueueError? { receiveQueue.error ?? transmitQueue.error }

    /// The memory, for a back-end. Its user addresses are where it is mapped here.
    var region: FrontendRegion {
        FrontendRegion(
            guestAddress: Self.guestAddress,
            size: UInt64(Self.size),
            userAddress: UInt64(UInt(bitPattern: unsafe mapping.address)),
            file: file.descriptor
        )
    }

    /// True when a frame can be queued.
    func canSend() -> Bool {
        reapTransmitted()
        return !freeTransmitBuffers.isEmpty && transmitQueue.error == nil
    }

    /// Queues a frame; false when every buffer is under way.
    func send(_ frame: TrafficFrame) -> Bool {
        guard let buffer = freeTransmitBuffers.popLast() else { return false }
        let offset = transmitOffset(buffer)
        let bytes = unsafe UnsafeMutableRawBufferPointer(
            start: mapping.address + offset,
            count: Self.bufferSize
        )
        unsafe bytes.baseAddress?.initializeMemory(
            as: UInt8.self,
            repeating: 0,
            count: Self.headerSize
        )
        let length = unsafe frame.write(
            into: UnsafeMutableRawBufferPointer(rebasing: bytes[Self.headerSize...])
        )
        let head = transmitQueue.post(
            DriverBuffer(
                address: Self.guestAddress + UInt64(offset),
                length: UInt32(Self.headerSize + length),
                isWritable: false
            )
        )
        guard let head else {
            freeTransmitBuffers.append(buffer)
            return false
        }
        transmitBufferOfHead[Int(head)] = buffer
        return true
    }

    /// Shows the device what was queued; true when it wants to be kicked.
    func flushSent() -> Bool {
        transmitQueue.publish()
        return transmitQueue.shouldNotifyDevice()
    }

    /// Hands every arrived frame to `body`, `nil` for one that is damaged, and gives the buffers back.
    /// Returns how many came and whether the device wants to be kicked.
    func receive(_ body: (TrafficFrame?) -> Void) -> (count: Int, wantsKick: Bool) {
        var count = 0
        while count < Int(Self.ringSize), let used = receiveQueue.reap() {
            count += 1
            let buffer = receiveBufferOfHead[Int(used.head)]
            if mergedRest > 0 {
                mergedRest -= 1
            } else {
                take(buffer, written: Int(used.written), body)
            }
            postReceive(buffer)
        }
        // The device returns all buffers of a frame at once (virtio 1.3 §5.1.6.4): whatever it
        // claims, the next one is another frame's.
        if count < Int(Self.ringSize) { mergedRest = 0 }
        guard count > 0 else { return (0, false) }
        receiveQueue.publish()
        return (count, receiveQueue.shouldNotifyDevice())
    }

    private func take(_ buffer: Int, written: Int, _ body: (TrafficFrame?) -> Void) {
        guard let content = unsafe content(of: buffer, written: written) else { return body(nil) }
        if let station, unsafe TrafficFrame.isForeign(content, at: station) {
            foreign += 1
        } else {
            body(unsafe try? TrafficFrame(reading: content))
        }
    }

    private func content(of buffer: Int, written: Int) -> UnsafeRawBufferPointer? {
        let start = unsafe mapping.address + receiveOffset(buffer)
        let bytes = unsafe UnsafeRawBufferPointer(start: start, count: written)
        guard written > Self.headerSize else {
            shortHeaders += 1
            return nil
        }
        let buffers = unsafe bytes.loadUnaligned(fromByteOffset: 10, as: UInt16.self)
        guard buffers == 1 || (buffers == 0 && !isMergeable) else {
            bufferCounts += 1
            mergedRest = max(0, Int(buffers) - 1)
            return nil
        }
        return unsafe UnsafeRawBufferPointer(rebasing: bytes[Self.headerSize...])
    }

    private func postReceive(_ buffer: Int) {
        let head = receiveQueue.post(
            DriverBuffer(
                address: Self.guestAddress + UInt64(receiveOffset(buffer)),
                length: UInt32(Self.bufferSize),
                isWritable: true
            )
        )
        if let head { receiveBufferOfHead[Int(head)] = buffer }
    }

    private func reapTransmitted() {
        while let used = transmitQueue.reap() {
            freeTransmitBuffers.append(transmitBufferOfHead[Int(used.head)])
        }
    }

    private func receiveOffset(_ buffer: Int) -> Int {
        Self.ringsSize + buffer * Self.bufferSize
    }

    private func transmitOffset(_ buffer: Int) -> Int {
        Self.ringsSize + (Int(Self.ringSize) + buffer) * Self.bufferSize
    }
}
