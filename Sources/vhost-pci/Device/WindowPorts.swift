import HostSystem
import PCI
import PollEngine
import VhostPCINet
import Virtio

/// The vhost-pci-net functions of a run: through the window of each, its driver reaches another
/// machine's rings, and that machine is a port of the engine.
///
/// The machine behind a function comes and goes; the port waits for it. A function that vanishes, that
/// cannot be driven any more, or that the kernel wants back is taken out, by name, and the run goes on
/// without it; its verdict is then `failed`.
final class WindowPorts {
    private final class Device {
        let name: String
        let port: PortID
        let host: PeerPortHost
        /// The driver, which keeps the function open; `nil` once the device is out.
        var driver: VhostPCINetDriver?
        /// The word of the kernel, or of the server, on the function.
        var watch = FunctionWatch()
        /// How often the machine behind the function was there anew.
        var connections: UInt64 = 0
        /// Rings of the machine are worked.
        var isConnected = false
        /// What kept the machine from being there.
        var refusal: Refusal?
        /// Why the device is to be taken out.
        var trouble: (text: String, id: String)?

        init(_ name: String, _ port: PortID, _ host: PeerPortHost) {
            self.name = name
            self.port = port
            self.host = host
        }
    }

    private let engine: Engine
    private let loop: EventLoop
    private let report: DevicePorts.Report
    private var devices: [Device] = []

    /// Why devices were taken out, one sentence each.
    private(set) var reasons: [String] = []

    init(engine: Engine, loop: EventLoop, report: @escaping DevicePorts.Report) {
        self.engine = engine
        self.loop = loop
        self.report = report
    }

    /// True while a device is driven.
    var isAnyLeft: Bool { devices.contains { $0.driver != nil } }

    /// How often the machine behind each function was there anew, by port name.
    var connectionsByName: [String: UInt64] {
        Dictionary(uniqueKeysWithValues: devices.map { ($0.name, $0.connections) })
    }

    /// Brings a device up; its port is attached when the machine behind it is there.
    func add(_ name: String, _ function: any PCIFunction, _ transport: PCITransport) throws {
        let port = try engine.addPort(name: name, kind: .peer)
        let host = PeerPortHost(engine: engine, port: port, loop: loop) { [report] text, id in
            report(name, text, id)
        }
        let device = Device(name, port, host)
        host.onEvent = { [weak self, weak device] event in
            if let device { self?.follow(event, device) }
        }
        let driver = VhostPCINetDriver(transport: transport, loop: loop, host: host)
        try driver.start()
        device.driver = driver
        devices.append(device)
        watch(function, device)
    }

    /// Takes out what is broken: not from within a driver's own report, which comes in mid-work.
    func look() {
        for device in devices where device.driver != nil {
            if let trouble = device.trouble { remove(device, trouble.text, trouble.id) }
        }
    }

    /// Ends the drivers: each says OFF, waits a bounded time for the answer, and resets its device.
    /// The functions close with them. To be called while the workers still run.
    func stop() {
        for device in devices {
            // A machine that was to be seen and never could be is no success.
            if device.driver != nil, let refusal = device.refusal {
                reasons.append("\(device.name): \(refusal)")
            }
            end(device)
        }
    }

    private func follow(_ event: DriverEvent, _ device: Device) {
        switch event {
        case .connected(let rings, _):
            device.connections += 1
            guard rings > 0 else { break }
            device.isConnected = true
            device.refusal = nil
        case .disconnected: device.isConnected = false
        // One frame that is refused of a machine that is there is no failure.
        case .refused(let refusal) where !device.isConnected: device.refusal = refusal
        case .deviceGone: device.trouble = ("\(event)", "pci/device-gone")
        case .failed(let why): device.trouble = (why, "device/failed")
        default: break
        }
    }

    /// Follows what is said of a function. Without that word the device works as well.
    private func watch(_ function: any PCIFunction, _ device: Device) {
        do {
            device.watch = try FunctionWatch(function, on: loop) { [weak self, weak device] lost in
                if let device { self?.remove(device, "\(lost)", lost.id) }
            }
        } catch {
            report(device.name, "nobody will say when it is lost: \(error)", nil)
        }
    }

    private func remove(_ device: Device, _ why: String, _ id: String) {
        guard device.driver != nil else { return }
        reasons.append("\(device.name): \(why)")
        report(device.name, "\(why); it is out until this program is started again", id)
        end(device)
    }

    private func end(_ device: Device) {
        device.watch.stop()
        guard let driver = device.driver else { return }
        driver.stop()
        device.driver = nil
    }
}
