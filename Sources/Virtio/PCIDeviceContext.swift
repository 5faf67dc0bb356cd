internal import GuestMemory
internal import VirtioSpec
internal import Virtqueue

/// What a device behind a PCI function sees of it, from DRIVER_OK to reset. Afterwards it is dead:
/// a device that still holds it reaches no memory and interrupts nobody.
final class PCIDeviceContext: DeviceContext {
    private weak var function: VirtioPCIFunction?
    let features: FeatureBits

    init(_ function: VirtioPCIFunction, _ features: FeatureBits) {
        self.function = function
        self.features = features
    }

    func end() {
        function = nil
    }

    func queue(_ index: Int) -> QueueConfiguration? {
        guard let function else { return nil }
        return function.registers.configuration(ofQueue: index, function.device)
    }

    var memory: MemoryTable { function?.reachableMemory ?? .empty }

    func interruptQueue(_ index: Int) {
        function?.interruptQueue(index)
    }

    func interruptConfiguration() {
        function?.interruptConfiguration()
    }

    func fail(_ reason: DeviceFault) {
        function?.fail(reason)
    }
}
