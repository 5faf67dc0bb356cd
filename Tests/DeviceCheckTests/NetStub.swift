import GuestMemory
import Virtio
import VirtioSpec
import Virtqueue

/// A network device that takes every frame and throws it away, and may do so badly.
final class NetStub: QueueResettable {
    /// What it does wrong.
    enum Misdeed: Equatable {
        /// Takes nothing.
        case deaf
        /// Interrupts whether it was asked to or not.
        case importunate
        /// Interrupts the configuration's vector for transmitted frames.
        case misdirected
        /// Never interrupts.
        case silent
        /// Claims to have written 4 bytes.
        case written
        /// Returns head 15, whatever it was given.
        case otherHead
        /// Returns a buffer at the start that nobody gave.
        case inventive
        /// Takes only buffers of one descriptor.
        case single
        /// Takes no more than that many frames.
        case tired(after: Int)
        /// Takes no indirect tables.
        case flat
        /// Takes nothing once a single queue was reset.
        case deafAfterQueueReset
        /// Takes nothing any more once a driver broke a ring.
        case unforgiving
        /// Takes one buffer of each that it is told of.
        case lazy
    }

    let type: DeviceType = .net
    var offeredFeatures: FeatureBits = [
        .netMAC, .netStatus, .netMultiqueue, FeatureBits(bit: 3), .indirectDescriptors,
        .eventIndex, .ringReset, .accessPlatform,
    ]
    var queueLimits: [UInt16] = [256, 256]
    /// MAC address, status, number of pairs, MTU.
    var configuration: [UInt8] = [2, 0, 0, 0, 0, 1, 1, 0, 1, 0, 0xdc, 5]
    var misdeed: Misdeed?
    /// Told of each frame.
    var took: (() -> Void)?
    /// What comes back for a frame, header included; `nil` where the wire is no loop.
    var returns: (([UInt8]) -> [UInt8])?
    private var context: MeddlingContext?
    private var queue: DeviceBufferQueue?
    private var receiveQueue: DeviceBufferQueue?
    private var hasBroken = false
    private var position: UInt16 = 0
    private var taken = 0

    func writeConfiguration(_ bytes: [UInt8], at offset: Int) -> Bool { false }

    func acceptsFeatures(_ features: FeatureBits) -> Bool { features.contains(.accessPlatform) }

    func activate(_ context: any DeviceContext) {
        self.context = MeddlingContext(context, misdeed)
        open()
        if misdeed == .inventive { patch(2, [1, 0]) }
    }

    func deactivate() {
        queue = nil
        receiveQueue = nil
        context = nil
    }

    func queueReset(_ queue: Int) {
        if queue == 1 { self.queue = nil }
    }

    func queueEnabled(_ queue: Int) {
        if queue == 1, misdeed != .deafAfterQueueReset { open() }
    }

    func queueNotified(_ index: Int) {
        guard index == 1, let queue, misdeed != .deaf,
            !(misdeed == .unforgiving && hasBroken)
        else { return }
        while misdeed != .single || nextIsSingle, let buffer = queue.next() {
            if case .tired(let limit) = misdeed, taken >= limit { break }
            taken += 1
            let slot = 4 + 8 * Int(position % 16)
            position &+= 1
            queue.complete(buffer)
            took?()
            if let returns { deliver(returns(buffer.readable)) }
            if misdeed == .importunate { context?.interruptQueue(1) }
            if misdeed == .written { patch(slot + 4, [4]) }
            if misdeed == .otherHead { patch(slot, [15]) }
            if misdeed == .lazy { break }
        }
        if queue.fault != nil { hasBroken = true }
    }

    /// Puts a frame into the receive queue.
    private func deliver(_ bytes: [UInt8]) {
        guard let buffer = receiveQueue?.next() else { return }
        receiveQueue?.complete(buffer, writing: bytes)
    }

    private func open() {
        position = 0
        taken = 0
        guard let context, context.queue(1) != nil else { return }
        do {
            queue = try DeviceBufferQueue(context: context, queue: 1)
            if context.queue(0) != nil {
                receiveQueue = try DeviceBufferQueue(context: context, queue: 0)
            }
        } catch {
            context.fail(DeviceFault(error.rawValue, queue: 1))
        }
    }

    /// The buffer to be taken next is one descriptor that reaches into memory itself.
    private var nextIsSingle: Bool {
        guard let context, let ring = context.queue(1),
            let head = context.memory.read(ring.driverArea + 4 + 2 * UInt64(position % 16), 2),
            let flags = context.memory.read(ring.descriptorArea + 16 * UInt64(head[0]) + 12, 2)
        else { return false }
        return flags[0] & 5 == 0
    }

    /// Writes to the used ring behind the queue's back.
    private func patch(_ offset: Int, _ bytes: [UInt8]) {
        guard let context, let ring = context.queue(1) else { return }
        _ = context.memory.write(bytes, at: ring.deviceArea + UInt64(offset))
    }
}

/// Passes on what a device asks, but for its misdeed.
private final class MeddlingContext: DeviceContext {
    private let base: any DeviceContext
    private let misdeed: NetStub.Misdeed?

    init(_ base: any DeviceContext, _ misdeed: NetStub.Misdeed?) {
        self.base = base
        self.misdeed = misdeed
    }

    var features: FeatureBits { base.features }
    var memory: MemoryTable { base.memory }

    func queue(_ index: Int) -> QueueConfiguration? {
        var queue = base.queue(index)
        if misdeed == .flat { queue?.features.remove(.indirect) }
        return queue
    }

    func interruptQueue(_ index: Int) {
        switch misdeed {
        case .silent: break
        case .misdirected: base.interruptConfiguration()
        default: base.interruptQueue(index)
        }
    }

    func interruptConfiguration() { base.interruptConfiguration() }

    func fail(_ reason: DeviceFault) { base.fail(reason) }
}
