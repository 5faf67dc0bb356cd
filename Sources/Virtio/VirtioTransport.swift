public import GuestMemory
public import HostSystem
public import PCI
public import VirtioSpec
public import Virtqueue

/// One virtio device as its driver sees it, whatever lies between: a PCI function's registers, or
/// admin commands for a virtual device. Control path only.
public protocol VirtioTransport: AnyObject {
    /// Which device this is.
    var deviceType: DeviceType { get }

    /// The features that the device offers.
    func deviceFeatures() throws(VirtioError) -> FeatureBits

    /// Writes the driver's choice.
    func setDriverFeatures(_ features: FeatureBits) throws(VirtioError)

    /// Reads the status byte.
    func status() throws(VirtioError) -> DeviceStatus

    /// Writes the status byte.
    func setStatus(_ status: DeviceStatus) throws(VirtioError)

    /// Resets the device and waits, for a bounded time, until it says so (HI-A50).
    func reset() throws(VirtioError)

    /// Number of queues, admin queues not counted.
    func queueCount() throws(VirtioError) -> Int

    /// Largest size of a queue; 0 when it is not available.
    func queueLimit(_ queue: Int) throws(VirtioError) -> UInt16

    /// Sets a queue up and enables it. `vector` is delivered on its used-buffer notifications.
    func enableQueue(
        _ queue: Int,
        _ configuration: QueueConfiguration,
        vector: UInt16?
    ) throws(VirtioError)

    /// Binds configuration-change notifications to a vector.
    func bindConfigurationVector(_ vector: UInt16) throws(VirtioError)

    /// Tells the device that a queue has new buffers.
    func notifyQueue(_ queue: Int) throws(VirtioError)

    /// What a polling thread rings instead of `notifyQueue`, once the queue is enabled. Throws
    /// `notSupported`, or a PCI error of that name, where no such value exists.
    func queueDoorbell(_ queue: Int) throws(VirtioError) -> Doorbell

    /// Reads device configuration space; re-read until the generation is stable (HI-A51).
    func readConfiguration(_ offset: Int, _ count: Int) throws(VirtioError) -> [UInt8]

    /// An eventfd that is signalled for `vector`.
    func interrupt(_ vector: UInt16) throws(VirtioError) -> EventFD

    /// Makes an arena that the device can reach, at addresses the device understands.
    func makeArena(size: Int) throws(VirtioError) -> DMAArena

    /// Gives an arena back after the device was reset.
    func releaseArena(_ arena: DMAArena) throws(VirtioError)

    /// Maps part of a BAR that holds another machine's memory (vhost-pci-net).
    func mapPeerWindow(bar: Int, offset: UInt64, size: UInt64) throws(VirtioError) -> BARWindow

    /// The doorbell of a slot of the peer-notify structure (vhost-pci-net).
    func peerDoorbell(slot: UInt16) throws(VirtioError) -> Doorbell
}

extension VirtioTransport {
    /// There is none unless a transport says otherwise: every notification is a call.
    public func queueDoorbell(_ queue: Int) throws(VirtioError) -> Doorbell {
        throw .notSupported("a doorbell for queue \(queue) of this transport")
    }
}
