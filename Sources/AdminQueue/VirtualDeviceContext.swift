internal import GuestMemory
internal import Virtio
internal import VirtioSpec
internal import Virtqueue

/// What the device behind a virtual device sees of it, from DRIVER_OK to reset.
///
/// After a fault, and after a reset, it is dead: no memory is reachable through it, no queue is there
/// and no interrupt leaves, whatever the device still tries (AVQ-D-310, AVQ-D-323).
final class VirtualDeviceContext: DeviceContext {
    private weak var owner: VirtualDevice?
    let features: FeatureBits

    init(_ owner: VirtualDevice, _ features: FeatureBits) {
        self.owner = owner
        self.features = features
    }

    func end() {
        owner = nil
    }

    func queue(_ index: Int) -> QueueConfiguration? {
        owner?.state.queues.configuration(index, features: QueueFeatures(features))
    }

    var memory: MemoryTable { owner?.memory ?? .empty }

    func interruptQueue(_ index: Int) {
        guard let queue = UInt16(exactly: index) else { return }
        owner?.interrupt(.queue(queue))
    }

    func interruptConfiguration() {
        owner?.interrupt(.configuration)
    }

    func fail(_ reason: DeviceFault) {
        owner?.fail(reason)
    }
}
