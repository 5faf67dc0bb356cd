import AdminQueue
import GuestMemory
import HostSystem
import PCI
import Testing
import Virtio
import VirtioSpec

@testable import VhostPCINet

/// vhost-pci-net devices made by the admin queue of a management device, and their drivers behind
/// admin transports: what a run does, with scripted peers.
final class AdminRig {
    static let sliceSize = 1 << 22
    static let slots = 2

    let loop: EventLoop
    let function: VirtioPCIFunction
    let manager: ManagementDriver
    private let factory: SliceFactory

    init() throws {
        loop = try EventLoop()
        factory = try SliceFactory(loop: loop)
        let device = try ManagementDevice(
            factory: factory,
            peerWindow: factory.window,
            peerDoorbells: factory.doorbells,
            loop: loop
        )
        function = try VirtioPCIFunction(device: device)
        let transport = try PCITransport(function: InProcessFunction(endpoint: function))
        manager = try ManagementDriver(transport: transport, loop: loop)
    }

    /// One virtual device with its driver, and the socket that its peer connects to.
    struct Line {
        let id: UInt64
        let device: VhostPCINetDevice
        let transport: AdminTransport
        let driver: VhostPCINetDriver
        let host: RecordingHost
        let path: String
    }

    /// Creates a device, listens, and starts its driver.
    func line() throws -> Line {
        let id = try manager.create(type: .vhostPCINet)
        let device = try #require(factory.devices[id])
        let path = TemporaryPath.socket()
        try device.listen(at: path)
        let transport = try manager.transport(for: id)
        let host = RecordingHost()
        let driver = VhostPCINetDriver(transport: transport, loop: loop, host: host)
        try driver.start()
        return Line(
            id: id,
            device: device,
            transport: transport,
            driver: driver,
            host: host,
            path: path
        )
    }

    /// Connects a peer and waits for ON.
    func peer(of line: Line) throws -> ScriptedPeer {
        let peer = try ScriptedPeer(path: line.path, loop: loop)
        try peer.connect(features: [.version1])
        try wait("ON") { line.host.connection != nil && line.device.phase == .connected }
        return peer
    }

    /// Serves the loop until something is true.
    func wait(_ what: String, until condition: () throws -> Bool) throws {
        let deadline = Deadline(milliseconds: 3000)
        while try !condition() {
            guard !deadline.hasPassed else { throw LoopRig.TimedOut(what: what) }
            try loop.turn(limitMilliseconds: 5)
        }
    }
}

/// Makes vhost-pci-net devices, each with a slice of one window and slots of one doorbell table.
private final class SliceFactory: VirtualDeviceFactory {
    let window: Mapping
    let doorbells: DoorbellTable
    private(set) var devices: [UInt64: VhostPCINetDevice] = [:]
    private var taken: [Int: VhostPCINetDevice] = [:]
    private let loop: EventLoop

    init(loop: EventLoop) throws {
        self.loop = loop
        window = try Mapping.anonymous(length: AdminRig.slots * AdminRig.sliceSize)
        doorbells = try DoorbellTable(count: 2 * AdminRig.slots)
    }

    func makeDevice(
        type: DeviceType,
        attributes: DeviceAttributes,
        id: UInt64
    ) throws(AdminError) -> any VirtioDevice {
        guard type == .vhostPCINet else { throw .deviceType }
        guard let slot = (0..<AdminRig.slots).first(where: { taken[$0] == nil }) else {
            throw .noRoom
        }
        let device = VhostPCINetDevice(
            name: "vpci\(slot)",
            window: PeerWindowSlice(
                mapping: window,
                offset: slot * AdminRig.sliceSize,
                size: AdminRig.sliceSize
            ),
            doorbells: doorbells,
            firstDoorbell: 2 * slot,
            loop: loop
        )
        taken[slot] = device
        devices[id] = device
        return device
    }

    func discard(_ device: any VirtioDevice) {
        devices = devices.filter { $0.value !== device }
        for (slot, owner) in taken where owner === device {
            owner.close()
            taken[slot] = nil
        }
    }
}
