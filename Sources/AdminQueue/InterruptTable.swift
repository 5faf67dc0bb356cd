internal import VirtioSpec

/// The interrupt vectors of one virtual device, what is bound to them, and what they hold back while
/// masked. A value: whoever owns it sends the deliveries that come out.
struct InterruptTable: Equatable, Sendable {
    /// What an interrupt is about.
    enum Source: Hashable, Sendable {
        /// A queue has used buffers.
        case queue(UInt16)
        /// The configuration or the status changed.
        case configuration
    }

    /// An interrupt to be sent now.
    struct Delivery: Hashable, Sendable {
        /// What it is about.
        let source: Source
        /// The vector it is bound to.
        let vector: UInt16
    }

    private struct Vector: Equatable {
        var isMasked = false
        var messageData: UInt32 = 0
        var messageAddress: UInt64 = 0
        var pending: [Source] = []
    }

    private var vectors: [Vector]
    private var bindings: [Source: UInt16] = [:]
    private let queueCount: Int

    /// Makes `vectorCount` vectors, unmasked, bound to nothing.
    init(vectorCount: Int, queueCount: Int) {
        vectors = Array(repeating: Vector(), count: vectorCount)
        self.queueCount = queueCount
    }

    /// Number of vectors.
    var count: Int { vectors.count }

    /// Back to the defaults; what was held back is gone.
    mutating func reset() {
        vectors = Array(repeating: Vector(), count: vectors.count)
        bindings = [:]
    }

    /// The vector bound to a source, `noVector` for none.
    func vector(of source: Source) -> UInt16 {
        bindings[source] ?? noVector
    }

    /// Binds a source to a vector and returns what is in effect: `noVector` when the vector is not
    /// there, as a PCI device reads back (AVQ-D-315).
    mutating func bind(_ source: Source, to vector: UInt16) throws(AdminError) -> UInt16 {
        if case .queue(let queue) = source, Int(queue) >= queueCount {
            throw AdminError(.badQueue)
        }
        bindings[source] = Int(vector) < vectors.count ? vector : nil
        return self.vector(of: source)
    }

    /// Unbinds a queue that was reset, and forgets what it left pending.
    mutating func unbind(_ source: Source) {
        bindings[source] = nil
        for index in vectors.indices {
            vectors[index].pending.removeAll { $0 == source }
        }
    }

    /// Sets mask and message; unmasking yields what was held back (AVQ-D-316).
    mutating func set(_ record: VectorRecord) throws(AdminError) -> [Delivery] {
        let index = try index(record.vector)
        vectors[index].isMasked = record.flags.contains(.masked)
        vectors[index].messageData = record.messageData
        vectors[index].messageAddress = record.messageAddress
        guard !vectors[index].isMasked else { return [] }
        defer { vectors[index].pending = [] }
        return vectors[index].pending.map { Delivery(source: $0, vector: record.vector) }
    }

    /// What VECTOR_GET tells.
    func record(_ vector: UInt16) throws(AdminError) -> VectorRecord {
        let state = vectors[try index(vector)]
        var flags: VectorRecord.Flags = []
        if state.isMasked { flags.insert(.masked) }
        if !state.pending.isEmpty { flags.insert(.pending) }
        return VectorRecord(
            vector: vector,
            flags: flags,
            messageData: state.messageData,
            messageAddress: state.messageAddress
        )
    }

    /// An interrupt arises: sent now, held back by a mask, or nothing when nobody bound it.
    mutating func raise(_ source: Source) -> Delivery? {
        guard let vector = bindings[source] else { return nil }
        let index = Int(vector)
        guard vectors[index].isMasked else { return Delivery(source: source, vector: vector) }
        if !vectors[index].pending.contains(source) { vectors[index].pending.append(source) }
        return nil
    }

    private func index(_ vector: UInt16) throws(AdminError) -> Int {
        guard Int(vector) < vectors.count else { throw AdminError(.badVector) }
        return Int(vector)
    }
}
