public import Virtio
public import VirtioSpec

/// Makes the devices behind virtual devices: the one place that knows which device types there are.
public protocol VirtualDeviceFactory: AnyObject {
    /// Makes a device as VDEV CREATE asks for it.
    ///
    /// The error tells apart what was wrong: `.noRoom`, `.deviceType`, `.attribute(at:)` with the
    /// offset of the attribute that cannot be met, `.features` (AVQ-D-307). Whatever was taken for a
    /// device that does not come about is given back before throwing.
    func makeDevice(
        type: DeviceType,
        attributes: DeviceAttributes,
        id: UInt64
    ) throws(AdminError) -> any VirtioDevice

    /// Takes a device back; it was deactivated before and is not used any more.
    func discard(_ device: any VirtioDevice)
}
