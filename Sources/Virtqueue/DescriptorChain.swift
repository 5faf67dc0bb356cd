internal import GuestMemory
internal import VirtioSpec

/// One descriptor chain by the driver's own addresses, for control queues: it survives a change of
/// the memory table, and its bytes are reached through the table in force at that moment.
public struct DescriptorChain: Sendable, Equatable {
    /// A buffer of the chain.
    public struct Buffer: Sendable, Equatable {
        /// Address in the driver's space.
        public let address: UInt64
        /// Length in bytes, never 0.
        public let length: UInt32
    }

    /// Head index on the ring.
    public let head: UInt16
    /// What the device reads, in order.
    public let readable: [Buffer]
    /// What the device writes, in order.
    public let writable: [Buffer]

    /// Bytes the device reads.
    public var readableCount: Int { readable.reduce(0) { $0 + Int($1.length) } }
    /// Bytes the device may write.
    public var writableCount: Int { writable.reduce(0) { $0 + Int($1.length) } }
}

extension SplitDeviceQueue {
    /// Takes the next chain; `nil` when there is none or the queue is broken. Every buffer lies in
    /// memory and allows its access at this moment. Allocates: for control queues.
    public mutating func takeChain() -> DescriptorChain? {
        guard availableChains(1) == 1 else { return nil }
        let head = fetchHead(nextAvailable)
        var readable: [DescriptorChain.Buffer] = []
        var writable: [DescriptorChain.Buffer] = []
        var cursor = unsafe walk(from: head)
        while let descriptor = unsafe next(&cursor) {
            var offset: UInt32 = 0
            repeat {
                guard let piece = unsafe piece(descriptor, offset, &cursor) else { break }
                unsafe offset &+= piece.length
            } while offset < descriptor.length
            guard descriptor.length > 0 else { continue }
            let buffer = DescriptorChain.Buffer(
                address: descriptor.address,
                length: descriptor.length
            )
            if descriptor.isWritable { writable.append(buffer) } else { readable.append(buffer) }
        }
        if unsafe cursor.isFaulty {
            unsafe breakQueue(cursor)
            return nil
        }
        nextAvailable = nextAvailable &+ 1
        return DescriptorChain(head: head, readable: readable, writable: writable)
    }

    /// Returns one chain of which `written` bytes were filled, and shows it to the driver.
    public mutating func release(head: UInt16, written: UInt32) {
        guard fault == nil else { return }
        writeUsed(head: head, written: written)
        publishUsed()
    }
}
