internal import Virtqueue

/// A ring error as one word, so that a worker can publish it: the pair's index and the error.
enum RingFault {
    /// The word for an error of pair `pair`; 0 for none.
    @_noLocks @inline(__always)
    static func code(_ error: QueueError?, pair: Int) -> UInt64 {
        guard let error else { return 0 }
        // An enum without payload is one byte: its case number.
        return unsafe UInt64(unsafeBitCast(error, to: UInt8.self)) &+ 1
            | UInt64(truncatingIfNeeded: pair) &<< 32
    }

    /// The error of a word, with its pair.
    static func decode(_ code: UInt64) -> (pair: Int, error: QueueError)? {
        for error in QueueError.allCases
        where self.code(error, pair: 0) == code & 0xFFFF_FFFF && code != 0 {
            return (Int(code >> 32), error)
        }
        return nil
    }
}
