internal import Synchronization

/// All that is counted at one port while it is attached: 64-bit words and nothing else, so that
/// they can be added and published word by word.
struct PortRecord: BitwiseCopyable {
    /// Rings of a peer.
    var peer = PortCounters()
    /// A TAP interface.
    var tap = TapCounters()
    /// What the forwarder did with the packets.
    var engine = EngineCounters()

    /// Words in a record.
    static var words: Int {
        @_noLocks get { MemoryLayout<PortRecord>.size / 8 }
    }
}

extension PortRecord {
    /// Adds every word of another record.
    mutating func add(_ other: PortRecord) {
        addWords(of: other, to: &self)
    }
}

extension PortCounters {
    /// Adds every word of other counters.
    @_noLocks mutating func add(_ other: PortCounters) {
        addWords(of: other, to: &self)
    }
}

/// Adds every 64-bit word of counters to the same word of others; both are words and nothing else.
private func addWords<Counters: BitwiseCopyable>(of other: Counters, to sum: inout Counters) {
    unsafe withUnsafeMutableBytes(of: &sum) { mine in
        unsafe withUnsafeBytes(of: other) { theirs in
            var offset = 0
            while offset < mine.count {
                let word =
                    unsafe mine.load(fromByteOffset: offset, as: UInt64.self)
                    &+ theirs.load(fromByteOffset: offset, as: UInt64.self)
                unsafe mine.storeBytes(of: word, toByteOffset: offset, as: UInt64.self)
                offset &+= 8
            }
        }
    }
}

/// Where a worker publishes a port's record for the control thread: one writer, relaxed stores, so
/// a report is never torn inside a word, and words of one report may be some turns apart.
@safe
struct PortLedger {
    // Safety: `words` holds `PortLedger.count` initialised atomics for as long as the attachment
    // that owns them lives.
    /// Words: a record, the stall's begin, the first fault's code, and the broken pairs.
    static var count: Int { PortRecord.words + 3 }

    private let words: UnsafeMutablePointer<Atomic<UInt64>>

    @unsafe
    init(_ words: UnsafeMutablePointer<Atomic<UInt64>>) {
        unsafe self.words = words
    }

    /// Publishes; called by the worker.
    @_noLocks @inline(__always)
    func publish(
        _ record: UnsafePointer<PortRecord>,
        stalledSince: UInt64,
        fault: UInt64,
        brokenPairs: UInt64
    ) {
        let from = unsafe UnsafeRawPointer(record)
        let count = PortRecord.words
        var index = 0
        while index < count {
            let word = unsafe from.load(fromByteOffset: index &* 8, as: UInt64.self)
            unsafe words[index].store(word, ordering: .relaxed)
            index &+= 1
        }
        unsafe words[count].store(stalledSince, ordering: .relaxed)
        unsafe words[count &+ 1].store(fault, ordering: .relaxed)
        unsafe words[count &+ 2].store(brokenPairs, ordering: .relaxed)
    }

    /// The record as last published; called by the control thread.
    var record: PortRecord {
        var record = PortRecord()
        unsafe withUnsafeMutableBytes(of: &record) { bytes in
            for index in 0..<PortRecord.words {
                let word = unsafe words[index].load(ordering: .relaxed)
                unsafe bytes.storeBytes(of: word, toByteOffset: index * 8, as: UInt64.self)
            }
        }
        return record
    }

    /// Cycle count at which packets for the port began to find no buffer; 0 while they find some.
    var stalledSince: UInt64 { unsafe words[PortRecord.words].load(ordering: .relaxed) }

    /// `RingFault` code of the first broken queue pair; 0 when none is.
    var fault: UInt64 { unsafe words[PortRecord.words + 1].load(ordering: .relaxed) }

    /// Broken queue pairs, one bit each.
    var brokenPairs: UInt64 { unsafe words[PortRecord.words + 2].load(ordering: .relaxed) }
}
