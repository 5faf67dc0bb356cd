import AdminQueue
import HostSystem
import PCI
import VhostPCINet
import Virtio
import VirtioSpec

/// The device side of a run: an emulated management device as a PCI function of this process, and
/// the vhost-pci-net devices that its admin queue makes, each listening for one front-end.
final class EmulatedManagement {
    /// Address space that each vhost-pci-net device may fill with its peer's memory. It is reserved
    /// only: nothing is behind it until a peer comes.
    static let sliceSize = 1 << 36
    /// Queue pairs that a peer may use.
    static let queuePairs = 4

    /// The function, for a driver.
    let function: InProcessFunction
    private let slots: DeviceSlots

    /// Makes a management device with room for one vhost-pci-net device per name.
    init(
        names: [String],
        loop: EventLoop,
        report: @escaping (_ name: String, DeviceEvent) -> Void
    ) throws {
        var slices = 1
        while slices < names.count { slices *= 2 }
        let window = try Mapping.anonymous(length: slices * Self.sliceSize)
        let doorbells = try DoorbellTable(count: max(1, names.count * 2 * Self.queuePairs))
        slots = DeviceSlots(
            names: names,
            window: window,
            doorbells: doorbells,
            loop: loop,
            report: report
        )
        let device = try ManagementDevice(
            personality: .multi,
            limits: ManagementDevice.Limits(maximumDevices: names.count),
            factory: slots,
            peerWindow: window,
            peerDoorbells: doorbells,
            loop: loop
        )
        function = InProcessFunction(endpoint: try VirtioPCIFunction(device: device))
    }

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
    private let doorbells: DoorbellTable
    private let loop: EventLoop
    private let report: (String, DeviceEvent) -> Void
    private var taken: [Int: VhostPCINetDevice] = [:]

    init(
        names: [String],
        window: Mapping,
        doorbells: DoorbellTable,
        loop: EventLoop,
        report: @escaping (String, DeviceEvent) -> Void
    ) {
        self.names = names
        self.window = window
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
        let size = EmulatedManagement.sliceSize
        let name = names[slot]
        let device = VhostPCINetDevice(
            name: name,
            window: PeerWindowSlice(mapping: window, offset: slot * size, size: size),
            doorbells: doorbells,
            firstDoorbell: slot * 2 * EmulatedManagement.queuePairs,
            queuePairs: EmulatedManagement.queuePairs,
            loop: loop
        )
        device.report = { [report] event in report(name, event) }
        taken[slot] = device
        return device
    }

    func discard(_ device: any VirtioDevice) {
        guard let entry = taken.first(where: { $0.value === device }) else { return }
        entry.value.close()
        taken[entry.key] = nil
    }
}
