internal import VirtioSpec
internal import Virtqueue

/// The queues of one virtual device while its driver sets them up through commands of class VQ.
/// A value: no memory is touched here.
struct QueueTable: Equatable, Sendable {
    private struct Queue: Equatable {
        var size: UInt16
        var addresses = QueueAddresses(descriptorArea: 0, driverArea: 0, deviceArea: 0)
        var isEnabled = false
        var indices = QueueIndices(lastAvailable: 0, lastUsed: 0)
        var isKicked = false
        /// Reset by itself while the device runs: it may be enabled again.
        var wasReset = false
    }

    private var queues: [Queue]
    private var limits: [UInt16]

    /// Makes a table of queues with these largest sizes, each queue in its default state.
    init(limits: [UInt16]) {
        self.limits = limits
        queues = limits.map { Queue(size: $0) }
    }

    /// Number of queues.
    var count: Int { queues.count }

    /// The largest of the largest sizes.
    var maximumSize: UInt16 { limits.max() ?? 0 }

    /// All queues back to their defaults, which the device may have changed; their number stays.
    mutating func reset(limits offered: [UInt16]) {
        limits = limits.indices.map { offered.indices.contains($0) ? offered[$0] : 0 }
        queues = limits.map { Queue(size: $0) }
    }

    /// The index as ours; BAD_QUEUE for a queue that is not there (AVQ-D-317).
    func index(_ queue: UInt16) throws(AdminError) -> Int {
        guard Int(queue) < queues.count else { throw AdminError(.badQueue) }
        return Int(queue)
    }

    /// What VQ INFO tells of a queue.
    func information(
        _ queue: UInt16,
        vector: UInt16
    ) throws(AdminError) -> QueueInformation {
        let index = try index(queue)
        return QueueInformation(
            maximumSize: limits[index],
            size: queues[index].size,
            vector: vector,
            isEnabled: queues[index].isEnabled,
            addresses: queues[index].addresses
        )
    }

    /// Sets a size: a power of two, at most the queue's largest (AVQ-D-317).
    mutating func setSize(_ queue: UInt16, _ size: UInt16) throws(AdminError) {
        let index = try configurable(queue)
        guard size > 0, size & (size - 1) == 0, size <= limits[index] else {
            throw AdminError(.invalidField)
        }
        queues[index].size = size
    }

    /// Sets the three addresses, aligned as a split ring needs them (virtio 1.3 §2.7, HI-F68).
    mutating func setAddresses(
        _ queue: UInt16,
        _ addresses: QueueAddresses
    ) throws(AdminError) {
        let index = try configurable(queue)
        guard addresses.descriptorArea % 16 == 0, addresses.driverArea % 2 == 0,
            addresses.deviceArea % 4 == 0
        else { throw AdminError(.badAddress) }
        queues[index].addresses = addresses
    }

    /// Sets where the device starts. Both indices must agree: buffers that were taken and not yet
    /// used do not survive in a split ring without a record of them.
    mutating func setIndices(
        _ queue: UInt16,
        _ indices: QueueIndices
    ) throws(AdminError) {
        let index = try configurable(queue)
        guard indices.lastAvailable == indices.lastUsed else { throw AdminError(.invalidField) }
        queues[index].indices = indices
    }

    /// Where the device would start; a queue in use has no place that stays true (BAD_STATE).
    func indices(_ queue: UInt16) throws(AdminError) -> QueueIndices {
        queues[try configurable(queue)].indices
    }

    /// Enables a queue whose size and addresses are set; a second time is no error (AVQ-D-317).
    /// Once the device runs, only a queue that was reset by itself can be enabled (AVQ-D-318).
    mutating func enable(
        _ queue: UInt16,
        value: UInt16,
        whileRunning isRunning: Bool = false
    ) throws(AdminError) {
        let index = try index(queue)
        if isRunning, !queues[index].isEnabled, !queues[index].wasReset {
            throw AdminError(.badState)
        }
        let addresses = queues[index].addresses
        guard value == 1, queues[index].size > 0, addresses.descriptorArea != 0,
            addresses.driverArea != 0, addresses.deviceArea != 0
        else { throw AdminError(.invalidField) }
        queues[index].isEnabled = true
    }

    /// One queue back to its defaults (AVQ-D-318).
    mutating func reset(
        _ queue: UInt16,
        whileRunning isRunning: Bool = false
    ) throws(AdminError) {
        let index = try index(queue)
        queues[index] = Queue(size: limits[index], wasReset: isRunning)
    }

    /// Remembers a kick that came before DRIVER_OK (AVQ-D-319).
    mutating func rememberKick(_ queue: UInt16) throws(AdminError) {
        queues[try index(queue)].isKicked = true
    }

    /// Queues kicked before DRIVER_OK, each told once.
    mutating func takeKicks() -> [Int] {
        let kicked = queues.indices.filter { queues[$0].isKicked }
        for index in kicked { queues[index].isKicked = false }
        return kicked
    }

    /// True when the queue is there and enabled.
    func isEnabled(_ queue: Int) -> Bool {
        queues.indices.contains(queue) && queues[queue].isEnabled
    }

    /// An enabled queue as the device needs it; `nil` for one that is off.
    func configuration(_ queue: Int, features: QueueFeatures) -> QueueConfiguration? {
        guard isEnabled(queue) else { return nil }
        let state = queues[queue]
        return QueueConfiguration(
            size: state.size,
            descriptorArea: state.addresses.descriptorArea,
            driverArea: state.addresses.driverArea,
            deviceArea: state.addresses.deviceArea,
            nextAvailable: state.indices.lastAvailable,
            features: features
        )
    }

    private func configurable(_ queue: UInt16) throws(AdminError) -> Int {
        let index = try index(queue)
        guard !queues[index].isEnabled else { throw AdminError(.badState) }
        return index
    }
}
