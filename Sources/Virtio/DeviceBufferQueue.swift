internal import GuestMemory
public import Virtqueue

/// A control queue of a device: whole commands in, whole answers out. Control thread only; the
/// packet path uses `SplitDeviceQueue` itself.
///
/// A driver that breaks the ring makes `next` report the fault to the device's context, once; from
/// then on the queue gives nothing and takes nothing. When the context's memory changes the ring is
/// resolved anew, and buffers that are out are answered into the memory then in force.
public final class DeviceBufferQueue {
    /// One command: what the driver sent, and room for the answer.
    public struct Buffer {
        /// The bytes the driver wrote.
        public let readable: [UInt8]
        /// Bytes the answer may have.
        public let writableCount: Int

        fileprivate let chain: DescriptorChain
    }

    /// Bytes of one command that are copied at the most: memory use does not follow what a driver
    /// claims (HI-A33). What lies beyond is cut off, and shows as a command of this length.
    public static let readableLimit = 1 << 20

    private let context: any DeviceContext
    private let index: Int
    private var memory: MemoryTable
    private var queue: SplitDeviceQueue
    private var held: Set<UInt16> = []
    private var hasReported = false

    /// Resolves queue `queue` of the context's device, which must be enabled (`ring/size` if not).
    public init(context: any DeviceContext, queue index: Int) throws(QueueError) {
        guard let configuration = context.queue(index) else { throw .size }
        self.context = context
        self.index = index
        memory = context.memory
        queue = try SplitDeviceQueue(configuration, memory: context.memory)
    }

    /// Why the queue broke; `nil` while it runs.
    public var fault: QueueFault? { queue.fault }

    /// The next command; `nil` when there is none, or the queue is broken.
    public func next() -> Buffer? {
        guard followMemory() else { return nil }
        guard let chain = takeChain() else {
            report()
            return nil
        }
        // Answers may come in any order here, so one head twice is a broken driver (HI-A22).
        guard held.insert(chain.head).inserted else {
            queue.breakQueue(QueueFault(.duplicateHead, head: chain.head))
            report()
            return nil
        }
        guard let bytes = read(chain) else { return nil }
        return Buffer(readable: bytes, writableCount: chain.writableCount, chain: chain)
    }

    /// Answers a command: writes at most `writableCount` bytes, gives the chain back with the
    /// number written and notifies the driver as its suppression demands.
    public func complete(_ buffer: Buffer, writing bytes: [UInt8] = []) {
        guard followMemory(), held.remove(buffer.chain.head) != nil else { return }
        var rest = bytes.prefix(buffer.writableCount)
        let written = UInt32(rest.count)
        for piece in buffer.chain.writable where !rest.isEmpty {
            let part = rest.prefix(Int(piece.length))
            guard memory.write(part, at: piece.address) else {
                fail(buffer.chain, piece.address, .write)
                return
            }
            rest = rest.dropFirst(part.count)
        }
        queue.release(head: buffer.chain.head, written: written)
        if queue.shouldNotifyDriver() { context.interruptQueue(index) }
    }

    /// Under EVENT_IDX a driver notifies us of the one chain that we name, so each time the ring
    /// runs empty the next one is named; what came in between is taken at once.
    private func takeChain() -> DescriptorChain? {
        if let chain = queue.takeChain() { return chain }
        return queue.requestNotifications() ? queue.takeChain() : nil
    }

    private func read(_ chain: DescriptorChain) -> [UInt8]? {
        var bytes: [UInt8] = []
        for piece in chain.readable {
            let count = min(Int(piece.length), Self.readableLimit - bytes.count)
            guard count > 0 else { break }
            guard let part = memory.read(piece.address, count) else {
                fail(chain, piece.address, .read)
                return nil
            }
            bytes.append(contentsOf: part)
        }
        return bytes
    }

    private func followMemory() -> Bool {
        guard queue.error == nil else { return false }
        let now = context.memory
        guard now !== memory else { return true }
        do throws(QueueError) {
            try queue.rebind(to: now)
            memory = now
            return true
        } catch {
            queue.breakQueue(QueueFault(error))
            report()
            return false
        }
    }

    private func fail(_ chain: DescriptorChain, _ address: UInt64, _ access: MemoryAccess) {
        queue.breakQueue(
            QueueFault(.unmapped, head: chain.head, value: address, access: access)
        )
        report()
    }

    private func report() {
        guard let fault = queue.fault, !hasReported else { return }
        hasReported = true
        context.fail(
            DeviceFault(
                fault.error.rawValue,
                queue: index,
                address: fault.address,
                access: fault.access
            )
        )
    }
}
