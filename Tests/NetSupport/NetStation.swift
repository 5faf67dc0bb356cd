import GuestMemory
public import Virtio
public import VirtioSpec
import Virtqueue

/// A network device that does as the specification says: what its driver sends comes out of the
/// station that it is wired to, in as many receive buffers as the frame needs.
///
/// Everything happens on the thread that drives its registers. What it does wrong is set by tests.
public final class NetStation: VirtioDevice {
    /// What the device does not do as it should.
    public struct Misdeeds: OptionSet, Sendable {
        /// The bits.
        public let rawValue: UInt8
        /// Makes a set from its bits.
        public init(rawValue: UInt8) { self.rawValue = rawValue }
        /// Answers no control command.
        public static let ignoresCommands = Misdeeds(rawValue: 1)
        /// Refuses every control command.
        public static let refusesCommands = Misdeeds(rawValue: 2)
        /// Takes no feature set.
        public static let refusesFeatures = Misdeeds(rawValue: 4)
        /// Gives receive buffers back without a header in them.
        public static let shortHeaders = Misdeeds(rawValue: 8)
        /// Gives receive buffers back that nobody gave it.
        public static let returnsUnknown = Misdeeds(rawValue: 16)
    }

    /// A network device.
    public let type: DeviceType = .net
    /// Everything that its driver takes, and offloads that the driver has to leave alone.
    public var offeredFeatures: FeatureBits = [
        .netMAC, .netStatus, .netMTU, .netMergeableBuffers, .netControlQueue, .netControlReceive,
        .netMultiqueue, .indirectDescriptors, .eventIndex, .accessPlatform, .orderPlatform,
        // Checksums and segmentation, both ways.
        FeatureBits(bit: 0), FeatureBits(bit: 1), FeatureBits(bit: 7), FeatureBits(bit: 11),
    ]
    /// Receive and transmit queue of each pair, control queue.
    public var queueLimits: [UInt16]
    /// Address, status, number of pairs, MTU.
    public var configuration: [UInt8]
    /// What it does wrong.
    public var misdeeds: Misdeeds = []
    /// Where frames go that the driver sends.
    public var onFrame: (([UInt8]) -> Void)?

    /// Commands of the control queue so far.
    public private(set) var commands: [NetControl] = []
    /// Features that the driver took.
    public private(set) var features: FeatureBits = []
    /// True from DRIVER_OK to reset.
    public var isActive: Bool { context != nil }
    /// Frames that waited for a receive buffer while there were `backlogLimit` of them.
    public private(set) var overflow = 0

    private static let backlogLimit = 4096
    private let pairLimit: Int
    private var context: (any DeviceContext)?
    private var queues: [Int: DeviceBufferQueue] = [:]
    private var spare: [DeviceBufferQueue.Buffer] = []
    private var backlog: [[UInt8]] = []
    private var isPumping = false

    /// Makes a station with that address, MTU 1500, link up.
    public init(address: [UInt8], pairs: Int = 2, ringSize: UInt16 = 256) {
        pairLimit = pairs
        queueLimits = [UInt16](repeating: ringSize, count: 2 * pairs) + [64]
        configuration = address + [1, 0, UInt8(pairs), 0, 0xdc, 5]
    }

    /// Two stations, each of which gets what the other's driver sends.
    public static func wire(_ first: NetStation, _ second: NetStation) {
        first.onFrame = { [weak second] frame in second?.deliver(frame) }
        second.onFrame = { [weak first] frame in first?.deliver(frame) }
    }

    /// Nothing can be written.
    public func writeConfiguration(_ bytes: [UInt8], at offset: Int) -> Bool { false }

    /// All sets are fine, unless told otherwise.
    public func acceptsFeatures(_ features: FeatureBits) -> Bool {
        !misdeeds.contains(.refusesFeatures)
    }

    /// Opens the queues that the driver enabled.
    public func activate(_ context: any DeviceContext) {
        self.context = context
        features = context.features
        for index in queueLimits.indices where context.queue(index) != nil {
            do {
                queues[index] = try DeviceBufferQueue(context: context, queue: index)
            } catch {
                context.fail(DeviceFault(error.rawValue, queue: index))
            }
        }
    }

    /// Forgets everything of this driver.
    public func deactivate() {
        context = nil
        queues = [:]
        spare = []
        backlog = []
        commands = []
    }

    /// Serves a queue.
    public func queueNotified(_ index: Int) {
        if index == controlIndex {
            control()
        } else if index % 2 == 0 {
            pump()
        } else {
            transmit(index)
        }
    }

    /// Puts a frame into receive buffers of the first queue pair, as soon as there are enough.
    public func deliver(_ frame: [UInt8]) {
        guard isActive else { return }
        guard backlog.count < Self.backlogLimit else {
            overflow += 1
            return
        }
        backlog.append(frame)
        pump()
    }

    /// Sets the link and says so.
    public func setLink(up isUp: Bool) {
        configuration[6] = isUp ? 1 : 0
        context?.interruptConfiguration()
    }

    /// Asks for a reset.
    public func fail(_ id: String) {
        context?.fail(DeviceFault(id))
    }

    /// A configuration interrupt for nothing.
    public func interruptConfiguration() {
        context?.interruptConfiguration()
    }

    private var controlIndex: Int {
        features.contains(.netMultiqueue) ? 2 * pairLimit : 2
    }

    private func control() {
        guard let queue = queues[controlIndex], !misdeeds.contains(.ignoresCommands) else { return }
        while let buffer = queue.next() {
            let command = NetControl(buffer.readable)
            if let command { commands.append(command) }
            let isGood = command != nil && !misdeeds.contains(.refusesCommands)
            queue.complete(buffer, writing: [isGood ? NetControl.accepted : NetControl.refused])
        }
    }

    private func transmit(_ index: Int) {
        guard let queue = queues[index] else { return }
        while let buffer = queue.next() {
            queue.complete(buffer)
            if buffer.readable.count > NetHeader.size {
                onFrame?(Array(buffer.readable.dropFirst(NetHeader.size)))
            }
        }
    }

    /// Buffers are filled in the order in which frames came, also when a driver that gets one posts
    /// more from inside.
    private func pump() {
        guard !isPumping, let queue = queues[0] else { return }
        isPumping = true
        defer { isPumping = false }
        while let frame = backlog.first {
            guard reserve(NetHeader.size + frame.count, queue) else { return }
            backlog.removeFirst()
            fill(frame, queue)
        }
    }

    /// Takes receive buffers until `count` bytes fit; false when there are not enough yet.
    private func reserve(_ count: Int, _ queue: DeviceBufferQueue) -> Bool {
        while spare.reduce(0, { $0 + $1.writableCount }) < count {
            guard let buffer = queue.next() else { return false }
            spare.append(buffer)
        }
        return true
    }

    private func fill(_ frame: [UInt8], _ queue: DeviceBufferQueue) {
        var header = [UInt8](repeating: 0, count: NetHeader.size)
        header[10] = UInt8(truncatingIfNeeded: spare.count)
        var rest = (header + frame)[...]
        if misdeeds.contains(.shortHeaders) { rest = rest.prefix(4) }
        for buffer in spare {
            let part = rest.prefix(buffer.writableCount)
            rest = rest.dropFirst(part.count)
            queue.complete(buffer, writing: Array(part))
        }
        spare = []
        if misdeeds.contains(.returnsUnknown) { returnUnknown() }
    }

    /// Puts a used entry that names no descriptor into the first receive queue, behind its back.
    private func returnUnknown() {
        guard let context, let ring = context.queue(0),
            let bytes = context.memory.read(ring.deviceArea + 2, 2)
        else { return }
        let index = UInt16(bytes[0]) | UInt16(bytes[1]) << 8
        let next = ring.deviceArea + 4 + 8 * UInt64(index % ring.size)
        _ = context.memory.write([0xff, 0xff, 0, 0, 64, 0, 0, 0], at: next)
        let more = index &+ 1
        _ = context.memory.write(
            [UInt8(truncatingIfNeeded: more), UInt8(truncatingIfNeeded: more >> 8)],
            at: ring.deviceArea + 2
        )
    }
}
