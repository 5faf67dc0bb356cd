import GuestMemory
import HostSystem
import PCI
import Testing
import Virtio
import VirtioSpec
import Virtqueue

@testable import VhostPCINet

/// Device and driver in one process: the device behind a PCI function, the driver on a transport,
/// peers on a socket.
final class LoopRig {
    static let windowSize = 1 << 24

    let loop: EventLoop
    let window: Mapping
    let doorbells: DoorbellTable
    let device: VhostPCINetDevice
    let function: VirtioPCIFunction
    let bus: InProcessFunction
    let transport: PCITransport
    let host = RecordingHost()
    let driver: VhostPCINetDriver
    let path: String
    private(set) var deviceEvents: [DeviceEvent] = []

    init(
        pairs: Int = 1,
        slice: Int = 0,
        windowSize: Int = LoopRig.windowSize,
        options: VhostPCINetDevice.Options = VhostPCINetDevice.Options()
    ) throws {
        loop = try EventLoop()
        window = try Mapping.anonymous(length: windowSize)
        doorbells = try DoorbellTable(count: 2 * pairs + 2)
        device = VhostPCINetDevice(
            name: "test",
            window: PeerWindowSlice(mapping: window, offset: slice),
            doorbells: doorbells,
            firstDoorbell: 1,
            queuePairs: pairs,
            loop: loop,
            options: options
        )
        function = try VirtioPCIFunction(device: device)
        bus = InProcessFunction(endpoint: function)
        transport = try PCITransport(function: bus)
        driver = VhostPCINetDriver(transport: transport, loop: loop, host: host)
        path = TemporaryPath.socket()
        device.report = { [weak self] in self?.deviceEvents.append($0) }
        try device.listen(at: path)
    }

    deinit {
        device.close()
    }

    /// A peer that connects now; nothing is negotiated yet.
    func peer(rings: Int = 2, isSealed: Bool = true) throws -> ScriptedPeer {
        try ScriptedPeer(path: path, loop: loop, rings: rings, isSealed: isSealed)
    }

    /// Driver started, peer connected, ON.
    func connected(
        rings: Int = 2,
        features: FeatureBits? = nil,
        isSealed: Bool = true
    ) throws -> ScriptedPeer {
        if host.events.isEmpty { try driver.start() }
        let peer = try peer(rings: rings, isSealed: isSealed)
        try peer.connect(features: features)
        try wait("ON") { isOn(rings: rings) }
        return peer
    }

    /// ON, with that many rings at work.
    func isOn(rings: Int = 2) -> Bool {
        let working = host.connection?.rings.count { $0.isStarted && $0.isEnabled }
        return device.phase == .connected && working == rings
    }

    /// Serves the loop until something is true.
    func wait(
        _ what: String,
        milliseconds: UInt64 = 3000,
        location: SourceLocation = #_sourceLocation,
        until condition: () throws -> Bool
    ) throws {
        let deadline = Deadline(milliseconds: milliseconds)
        while try !condition() {
            guard !deadline.hasPassed else {
                Issue.record("no \(what) after \(milliseconds) ms", sourceLocation: location)
                throw TimedOut(what: what)
            }
            try loop.turn(limitMilliseconds: 5)
        }
    }

    /// Serves the loop for a while.
    func run(milliseconds: UInt64) throws {
        let deadline = Deadline(milliseconds: milliseconds)
        while !deadline.hasPassed { try loop.turn(limitMilliseconds: 5) }
    }

    func refusals() -> [String] {
        deviceEvents.compactMap { if case .refused(let refusal) = $0 { refusal.id } else { nil } }
    }

    func forgetEvents() {
        deviceEvents = []
    }

    struct TimedOut: Error {
        let what: String
    }
}

/// A host without threads: keeps what it is told.
final class RecordingHost: VhostPCINetHost {
    private(set) var connection: PeerConnection?
    private(set) var connects = 0
    private(set) var disconnects = 0
    private(set) var events: [DriverEvent] = []
    /// Runs while the driver waits for threads to let go.
    var whileDisconnecting: (() -> Void)?

    /// Connections that it will not take.
    var failures = 0

    func peerConnected(_ connection: PeerConnection) throws(PeerConnectionFailure) {
        #expect(self.connection == nil)
        if failures > 0 {
            failures -= 1
            throw PeerConnectionFailure("port/attach", "not now")
        }
        self.connection = connection
        connects += 1
    }

    /// Waits that end before a thread has let go.
    var refusesToLetGo = 0
    /// How long each wait was allowed to be, in milliseconds.
    private(set) var waits: [UInt64] = []

    func peerDisconnecting(milliseconds: UInt64) -> Bool {
        waits.append(milliseconds)
        #expect(connection != nil)
        whileDisconnecting?()
        if refusesToLetGo > 0 {
            refusesToLetGo -= 1
            return false
        }
        connection = nil
        disconnects += 1
        return true
    }

    func driverReport(_ event: DriverEvent) {
        events.append(event)
    }

    /// This machine is no more.
    func forget() {
        connection = nil
    }

    var refusals: [String] {
        events.compactMap { if case .refused(let refusal) = $0 { refusal.id } else { nil } }
    }
}
