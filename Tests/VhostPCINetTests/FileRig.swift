import HostSystem
import PCI
import Testing
import VhostUser
import Virtio
import VirtioSpec
import Virtqueue

@testable import VhostPCINet

/// A device with windows of its own, placed by rule F: presented, as a daemon would do it, once the
/// memory of a peer is known. Its driver is in this process all the same.
final class FileRig {
    let loop: EventLoop
    let device: VhostPCINetDevice
    let host = RecordingHost()
    let path = TemporaryPath.socket()
    private(set) var function: VirtioPCIFunction?
    private(set) var bus: InProcessFunction?
    private(set) var transport: PCITransport?
    private(set) var driver: VhostPCINetDriver?
    private(set) var events: [DeviceEvent] = []
    private(set) var layouts = 0

    init(options: VhostPCINetDevice.Options = VhostPCINetDevice.Options()) throws {
        loop = try EventLoop()
        device = try VhostPCINetDevice(name: "test", loop: loop, options: options)
        device.report = { [weak self] in self?.events.append($0) }
        device.windowsChanged = { [weak self] in self?.present() }
        try device.listen(at: path)
    }

    deinit {
        device.close()
    }

    var refusals: [String] {
        events.compactMap { if case .refused(let refusal) = $0 { refusal.id } else { nil } }
    }

    /// A new function for windows of other lengths.
    private func present() {
        layouts += 1
        function?.reset()
        do {
            function = try VirtioPCIFunction(device: device)
            try plug()
        } catch {
            Issue.record("\(error)")
        }
    }

    /// The function in a machine that was switched on just now.
    private func plug() throws {
        let bus = InProcessFunction(endpoint: try #require(function))
        transport = try PCITransport(function: bus)
        self.bus = bus
    }

    /// Drives the function as it is now, and fixes the windows, as a client's connection does.
    func startDriver() throws {
        let driver = VhostPCINetDriver(
            transport: try #require(transport),
            loop: loop,
            host: host
        )
        self.driver = driver
        device.isWindowFixed = true
        try driver.start()
    }

    /// The driver's machine is gone without a word.
    func loseDriver() throws {
        function?.clientGone()
        host.forget()
        driver = nil
        device.isWindowFixed = false
        try plug()
    }

    func peer(
        file: FileDescriptor? = nil,
        more regions: [ScriptedPeer.Region] = [],
        isSealed: Bool = true
    ) throws -> ScriptedPeer {
        let peer = try ScriptedPeer(path: path, loop: loop, isSealed: isSealed, file: file)
        peer.regions += regions
        return peer
    }

    func wait(
        _ what: String,
        location: SourceLocation = #_sourceLocation,
        until condition: () throws -> Bool
    ) throws {
        let deadline = Deadline(milliseconds: 3000)
        while try !condition() {
            guard !deadline.hasPassed else {
                Issue.record("no \(what)", sourceLocation: location)
                throw LoopRig.TimedOut(what: what)
            }
            try loop.turn(limitMilliseconds: 5)
        }
    }

    /// A peer with everything set up, a driver, ON.
    func connected(
        file: FileDescriptor? = nil,
        more regions: [ScriptedPeer.Region] = [],
        isSealed: Bool = true
    ) throws -> ScriptedPeer {
        let peer = try peer(file: file, more: regions, isSealed: isSealed)
        try peer.connect()
        try wait("peer") { device.description?.rings.contains(where: \.isStarted) == true }
        if driver == nil { try startDriver() }
        try wait("ON") { isOn }
        return peer
    }

    /// A peer that was here and went; its memory stays.
    func connectAndLeave() throws -> FileDescriptor {
        var peer: ScriptedPeer? = try connected()
        let file = try #require(peer).file
        peer = nil
        try wait("OFF") { host.connection == nil }
        return file
    }

    var isOn: Bool { device.phase == .connected && host.connection != nil }
}
