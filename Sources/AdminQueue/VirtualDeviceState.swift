internal import Virtio
internal import VirtioSpec

/// Everything that admin commands can change on one virtual device, as one value: two of them compare
/// equal exactly when no command has had an effect in between (AVQ-D-305).
struct VirtualDeviceState: Equatable {
    var status = DeviceStatusMachine()
    var driverFeatures: FeatureBits = []
    var queues: QueueTable
    var interrupts: InterruptTable
    var mmu: DeviceMMU
    var configuration: ConfigurationSpace
    var fault: DeviceFault?
}
