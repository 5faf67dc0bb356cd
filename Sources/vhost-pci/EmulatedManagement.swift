import AdminQueue
import HostSystem
import PCI
import VhostPCINet
import Virtio
import VirtioSpec

/// An emulated management device, and the vhost-pci-net devices that its admin queue makes, each
/// listening for one front-end.
final class EmulatedManagement {
    /// Address space that each vhost-pci-net device may fill with its peer's memory. It is reserved
    /// only: nothing is behind it until a peer comes.
    static let sliceSize = 1 << 36
    /// Queue pairs that a peer may use.
    static let queuePairs = 4

    /// The function, for whoever presents it.
    let endpoint: VirtioPCIFunction
    /// The management device itself.
    let device: ManagementDevice
    /// The function, for a driver in this process.
    private(set) lazy var function = InProcessFunction(endpoint: endpoint)
    private let slots: DeviceSlots

    /// Makes a management device with room for one vhost-pci-net device per name, each of which may
    /// show `sliceSize` bytes of its peer. `isRemote` when the driver is in another process.
    init(
        names: [String],
        sliceSize: Int = EmulatedManagement.sliceSize,
        isRemote: Bool = false,
        personality: Personality = .multi,
        loop: EventLoop,
        report: @escaping (_ name: String, DeviceEvent) -> Void
    ) throws {
        var slices = 1
        while slices < names.count { slices *= 2 }
        let window = try Mapping.anonymous(length: slices * sliceSize)
        let doorbells = try DoorbellTable(count: max(1, names.count * 2 * Self.queuePairs))
        slots = DeviceSlots(
            names: names,
            window: window,
            sliceSize: sliceSize,
            isRemote: isRemote,
            doorbells: doorbells,
            loop: loop,
            report: report
        )
        device = try ManagementDevice(
            personality: personality,
            limits: ManagementDevice.Limits(maximumDevices: names.count),
            factory: slots,
            peerWindow: window,
            peerDoorbells: doorbells,
            loop: loop
        )
        endpoint = try VirtioPCIFunction(device: device)
    }

    /// Called with each vhost-pci-net device that a driver creates, by name.
    var onCreate: ((_ name: String, VhostPCINetDevice) throws(AdminError) -> Void)? {
        get { slots.onCreate }
        set { slots.onCreate = newValue }
    }

    /// The device that was made for `name`, while there is one.
    func device(named name: String) -> VhostPCINetDevice? { slots.device(named: name) }

    /// Ends all vhost-pci-net devices.
    func close() { slots.close() }

    /// Lets the device that was made for `name` take front-ends at `path`.
    func listen(_ name: String, at path: String) throws {
        guard let device = slots.device(named: name) else {
            throw RunError.notSupported("listening for \(name), which has no device")
        }
        try device.listen(at: path)
    }

    /// Tells the peer of the device `name` that a queue pair of it is worked on no more.
    func ringsBroke(_ name: String, pair: Int) {
        slots.device(named: name)?.ringsBroke(pair: pair)
    }
}

/// Slices of the window and of the peer-notify structure, and who has them: reserved at CREATE,
/// freed at DESTROY.
private final class DeviceSlots: VirtualDeviceFactory {
    private let names: [String]
    private let window: Mapping
    private let sliceSize: Int
    private let isRemote: Bool
    private let doorbells: DoorbellTable
    private let loop: EventLoop
    private let report: (String, DeviceEvent) -> Void
    private var taken: [Int: VhostPCINetDevice] = [:]
    var onCreate: ((String, VhostPCINetDevice) throws(AdminError) -> Void)?

    init(
        names: [String],
        window: Mapping,
        sliceSize: Int,
        isRemote: Bool,
        doorbells: DoorbellTable,
        loop: EventLoop,
        report: @escaping (String, DeviceEvent) -> Void
    ) {
        self.names = names
        self.window = window
        self.sliceSize = sliceSize
        self.isRemote = isRemote
        self.doorbells = doorbells
        self.loop = loop
        self.report = report
    }

    func device(named name: String) -> VhostPCINetDevice? {
        taken.values.first { $0.name == name }
    }

    func makeDevice(
        type: DeviceType,
        attributes: DeviceAttributes,
        id: UInt64
    ) throws(AdminError) -> any VirtioDevice {
        guard type == .vhostPCINet else { throw .deviceType }
        guard let slot = names.indices.first(where: { taken[$0] == nil }) else { throw .noRoom }
        let name = names[slot]
        var options = VhostPCINetDevice.Options()
        options.sharesAddressSpace = !isRemote
        let device = VhostPCINetDevice(
            name: name,
            window: PeerWindowSlice(
                mapping: window,
                offset: slot * sliceSize,
                size: sliceSize
            ),
            doorbells: doorbells,
            firstDoorbell: slot * 2 * EmulatedManagement.queuePairs,
            queuePairs: EmulatedManagement.queuePairs,
            loop: loop,
            options: options
        )
        device.report = { [report] event in report(name, event) }
        try onCreate?(name, device)
        taken[slot] = device
        return device
    }

    func close() {
        for device in taken.values { device.close() }
    }

    func discard(_ device: any VirtioDevice) {
        guard let entry = taken.first(where: { $0.value === device }) else { return }
        entry.value.close()
        taken[entry.key] = nil
    }
}
