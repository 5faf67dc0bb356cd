import HostSystem
import PollEngine
import VhostPCINet
import Virtio

/// A vhost-pci-net device as a function of its own. Its peer connects to the vhost-user socket; the
/// vfio-user socket opens when the peer's memory is known, since the length of the windows follows
/// from it and a client asks for that only once.
final class ServedPeerNet: ServedDevice {
    let settings: DeviceSettings
    private let context: ServeContext
    private let device: VhostPCINetDevice
    private let peerPath: String
    private let socket: VfioUserSocket
    private let events: ServedEvents
    private let peer: PeerRecord
    /// Why the function could not be presented; tried again until it can.
    private var failure: String?
    private var nextTry = Deadline(milliseconds: 0)

    /// Looking whether a path is free connects to whoever has it: not with each look.
    private static let retryMilliseconds: UInt64 = 1000

    init(_ settings: DeviceSettings, _ context: ServeContext) throws {
        self.settings = settings
        self.context = context
        events = ServedEvents(context.reporter)
        peerPath = settings.vhostUser ?? ""
        peer = PeerRecord(peerPath, of: settings.name, events)
        var options = VhostPCINetDevice.Options()
        options.sharesAddressSpace = false
        options.windowHeadroom = UInt64(settings.headroom)
        device = try VhostPCINetDevice(
            name: settings.name,
            queuePairs: settings.queuePairs,
            loop: context.loop,
            options: options
        )
        socket = VfioUserSocket(settings.name, settings.vfioUser ?? "", context, events)
        socket.onChange = { [weak device] isConnected in device?.isWindowFixed = isConnected }
        device.report = { [peer] event in peer.follow(event) }
        device.windowsChanged = { [weak self] in self?.present() }
        try device.listen(on: context.listener(settings.name, "vhost-user", path: peerPath))
        context.tellListening(settings.name, peerPath)
    }

    /// The windows are laid out: a function that shows them takes the place of the one before.
    private func present() {
        do {
            try socket.open(try VirtioPCIFunction(device: device))
            failure = nil
        } catch {
            let line = CommandFailure(error).line
            if line != failure { context.reporter.problem("\(settings.name): \(line)") }
            failure = line
            nextTry = Deadline(milliseconds: Self.retryMilliseconds)
        }
    }

    func look(_ report: EngineReport?) {
        if failure != nil, nextTry.hasPassed { present() }
    }

    var report: ServedDeviceReport {
        var report = ServedDeviceReport(settings, sockets: [peer.report, socket.report], events)
        report.phase = device.phase.rawValue
        report.failure = failure
        report.queuePairs = settings.queuePairs
        return report
    }

    func close() {
        device.windowsChanged = nil
        socket.close()
        device.close()
    }
}
