public import GuestMemory
public import HostSystem
public import PCI
public import VirtioSpec
public import Virtqueue

/// A device type, written once; presentations (a PCI function's registers, admin commands) drive it
/// and own its status. It never sees a register.
///
/// All calls come from the control thread.
public protocol VirtioDevice: AnyObject {
    /// Which device this is.
    var type: DeviceType { get }

    /// What the device can do now; read when a driver asks.
    var offeredFeatures: FeatureBits { get }

    /// Largest size of each queue; the count is the number of queues.
    var queueLimits: [UInt16] { get }

    /// The device configuration space, as a driver would read it now; empty when there is none.
    var configuration: [UInt8] { get }

    /// Writes the configuration space; false when any of the bytes is read-only or not there, and
    /// then nothing changed (AVQ-D-314).
    func writeConfiguration(_ bytes: [UInt8], at offset: Int) -> Bool

    /// Decides on FEATURES_OK: true when the driver's set can be served. It is already a subset of
    /// the offer and contains VERSION_1.
    func acceptsFeatures(_ features: FeatureBits) -> Bool

    /// DRIVER_OK was set: run. `context` stays valid until `deactivate` returns.
    func activate(_ context: any DeviceContext)

    /// The driver notified a queue; only called while active.
    func queueNotified(_ queue: Int)

    /// The device is reset: when this returns it touches no driver memory and sends no interrupt.
    func deactivate()
}

/// A device that can stop and restart single queues while it runs; its offer contains RING_RESET.
public protocol QueueResettable: VirtioDevice {
    /// The driver resets a queue: when this returns, none of its buffers is touched any more.
    func queueReset(_ queue: Int)

    /// The driver set the queue up again; `DeviceContext.queue` has the new set-up.
    func queueEnabled(_ queue: Int)
}

/// What a running device may ask of its presentation.
public protocol DeviceContext: AnyObject {
    /// The negotiated features.
    var features: FeatureBits { get }

    /// An enabled queue's set-up, `nil` for one that the driver left off.
    func queue(_ index: Int) -> QueueConfiguration?

    /// What the device can reach now. A new object after every change: re-resolve rings then.
    var memory: MemoryTable { get }

    /// A used-buffer notification of a queue.
    func interruptQueue(_ index: Int)

    /// A configuration-change notification.
    func interruptConfiguration()

    /// The device cannot go on: DEVICE_NEEDS_RESET, with one configuration-change notification.
    func fail(_ reason: DeviceFault)
}

/// Why a device asks for a reset; kept for `show`.
public struct DeviceFault: Error, Sendable, Equatable, CustomStringConvertible {
    /// The stable error id, such as `ring/unmapped`.
    public let id: String
    /// Queue concerned.
    public let queue: Int?
    /// Address that could not be reached, when that was the cause.
    public let address: UInt64?
    /// What was tried at the address.
    public let access: MemoryAccess

    /// Describes a fault.
    public init(
        _ id: String,
        queue: Int? = nil,
        address: UInt64? = nil,
        access: MemoryAccess = []
    ) {
        self.id = id
        self.queue = queue
        self.address = address
        self.access = access
    }

    /// One line for people.
    public var description: String {
        var text = id
        if let queue { text += ", queue \(queue)" }
        if let address { text += ", address 0x\(String(address, radix: 16))" }
        return text
    }
}

/// A device that has to know when what it can reach is other memory than before, since threads of
/// their own work on it. Others ask `DeviceContext.memory` whenever they use it.
public protocol DriverMemoryObserver: VirtioDevice {
    /// `DeviceContext.memory` is another table now: when this returns nobody uses the old one, unless
    /// `isFormerMemoryInUse` says otherwise. Only called while active.
    func driverMemoryChanged()

    /// True while a thread that was told to let go of memory has not, also after a reset.
    var isFormerMemoryInUse: Bool { get }
}

/// A device that has to know when its driver went without a reset.
public protocol DriverObserver: VirtioDevice {
    /// Whoever presented the driver's machine is gone; a reset follows at once. Only called while
    /// active.
    func driverLost()
}

/// A device whose function carries a window onto other machines' memory (BAR 2, and BAR 4 where one
/// file is not enough) and a peer-notify structure (vhost-pci-net, or a management device that hands
/// out slices of both).
///
/// Windows are looked at when a function is made: one that is to be larger needs a new function.
public protocol PeerWindowProvider: AnyObject {
    /// The memory behind BAR 2; its length is a power of two.
    var peerWindow: Mapping { get }

    /// The memory behind BAR 4, if there is that BAR; its length is a power of two.
    var secondPeerWindow: Mapping? { get }

    /// The file that a client in another process may map in place of a window's BAR.
    func peerWindowFile(_ bar: Int) -> WindowFile?

    /// One doorbell per slot of the peer-notify structure.
    var peerDoorbells: DoorbellTable { get }
}

extension PeerWindowProvider {
    /// One window.
    public var secondPeerWindow: Mapping? { nil }

    /// No file: every access comes to the function.
    public func peerWindowFile(_ bar: Int) -> WindowFile? { nil }
}
