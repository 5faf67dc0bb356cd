import HostSystem
import PCI
import PollEngine
import Virtio
import VirtioNet
import VirtioSpec

/// The PCI devices of a run: each has a driver, and is a port of the engine.
///
/// A device that breaks a ring, asks for a reset, vanishes or is wanted back by the kernel is taken
/// out, by name, and the run goes on without it; its verdict is then `failed`.
final class DevicePorts {
    /// What is told of a device: its name, the text, an error id where it is one.
    typealias Report = (_ name: String, _ text: String, _ id: String?) -> Void

    private final class Device {
        let name: String
        let port: PortID
        /// The driver, which keeps the function open; `nil` once the device is out.
        var driver: NetDriver?
        /// The word of the kernel, or of the server, on the function.
        var watch = FunctionWatch()
        /// Why the device is to be taken out; its worker may not have let go yet.
        var trouble: String?

        init(_ name: String, _ driver: NetDriver, _ port: PortID) {
            self.name = name
            self.driver = driver
            self.port = port
        }
    }

    /// Status registers are read this often: a device that vanished sends no interrupt.
    private static let lookInterval: UInt64 = 200_000_000

    private let engine: Engine
    private let loop: EventLoop
    private let usesInterrupts: Bool
    private let report: Report
    private let windows: WindowPorts
    private var devices: [Device] = []
    private var nextLook: UInt64 = 0
    private var ownReasons: [String] = []

    /// Why devices were taken out, one sentence each.
    var reasons: [String] { ownReasons + windows.reasons }

    /// Makes an empty set. With interrupts a worker may sleep until a frame arrives.
    init(engine: Engine, loop: EventLoop, usesInterrupts: Bool, report: @escaping Report) {
        self.engine = engine
        self.loop = loop
        self.usesInterrupts = usesInterrupts
        self.report = report
        windows = WindowPorts(engine: engine, loop: loop, report: report)
    }

    /// Brings a device up and gives its queue pair, or those of the machine behind its window, to a
    /// worker.
    func add(_ name: String, _ function: any PCIFunction) throws {
        let transport = try PCITransport(function: function)
        if transport.deviceType == .vhostPCINet {
            return try windows.add(name, function, transport)
        }
        let driver = NetDriver(
            transport: transport,
            loop: loop,
            options: NetOptions(usesInterrupts: usesInterrupts)
        )
        driver.onEvent = { [report] event in report(name, "\(event)", nil) }
        try driver.start()
        do {
            let port = try engine.addDevice(name, pairs: driver.takePairs())
            let device = Device(name, driver, port)
            devices.append(device)
            watch(function, device)
            driver.onEvent = { [weak self, weak device] event in
                if let device { self?.follow(event, device) }
            }
        } catch {
            try? driver.stop()
            throw error
        }
        for line in Self.description(of: driver) { report(name, line, nil) }
    }

    /// True when there were devices and all of them are out.
    var areAllOut: Bool { !windows.isAnyLeft && devices.allSatisfy { $0.driver == nil } }

    /// How often the machine behind a vhost-pci-net function was there anew, by port name.
    var connectionsByName: [String: UInt64] { windows.connectionsByName }

    /// Looks at the devices and their rings, and takes out what is broken.
    func look(_ report: EngineReport) {
        windows.look()
        let now = MonotonicClock.now
        if now >= nextLook {
            nextLook = now + Self.lookInterval
            for device in devices where device.trouble == nil { device.driver?.check() }
        }
        for device in devices where device.trouble == nil {
            if let error = report.port(device.port)?.ringError {
                remove(device, "\(error.id): the device broke queue pair \(error.pair)", error.id)
            }
        }
        for device in devices where device.trouble != nil && device.driver != nil { letGo(device) }
    }

    /// Ends the drivers of vhost-pci-net functions, whose peers are told; workers still run.
    func stop() { windows.stop() }

    /// Notes the rings that broke without being seen by `look`, when all workers have ended.
    func account(_ report: EngineReport) {
        for device in devices where device.trouble == nil {
            guard let errors = report.port(device.port)?.ringErrors, !errors.isEmpty
            else { continue }
            let why = "\(errors.keys.sorted().joined(separator: ", ")): the device broke a ring"
            device.trouble = why
            ownReasons.append("\(device.name): \(why)")
        }
    }

    /// Resets the devices; no worker may use their queue pairs any more. Returns what went wrong.
    func close() -> [String] {
        var failures: [String] = []
        for device in devices {
            if let error = end(device) { failures.append("\(device.name): \(error)") }
        }
        return failures
    }

    /// Resets the device and closes its function; what went wrong, if anything.
    private func end(_ device: Device) -> (any Error)? {
        device.watch.stop()
        guard let driver = device.driver else { return nil }
        device.driver = nil
        do {
            try driver.stop()
        } catch {
            return error
        }
        return nil
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

    private func follow(_ event: NetEvent, _ device: Device) {
        switch event {
        case .link, .problem: report(device.name, "\(event)", nil)
        case .needsReset: remove(device, "\(event)", "device/needs-reset")
        case .gone: remove(device, "\(event)", "pci/device-gone")
        }
    }

    private func remove(_ device: Device, _ why: String, _ id: String) {
        guard device.trouble == nil else { return }
        device.trouble = why
        ownReasons.append("\(device.name): \(why)")
        report(device.name, "\(why); it is out until this program is started again", id)
        letGo(device)
    }

    /// Takes the port away, then resets the device. A worker that is late is asked again with the
    /// next look: what it may touch stays until then.
    private func letGo(_ device: Device) {
        do {
            try engine.detach(device.port)
        } catch {
            report(device.name, "\(error)", nil)
            return
        }
        if let error = end(device) { report(device.name, "\(error)", nil) }
        let unfinished = engine.snapshot().port(device.port)?.unfinished ?? 0
        if unfinished > 0 {
            report(device.name, "nobody knows what became of the last \(unfinished) frames", nil)
        }
    }

    /// What was negotiated, for people.
    static func description(of driver: NetDriver) -> [String] {
        let identity = driver.identity
        var parts: [String] = []
        if let bytes = identity.macAddress, let address = MACAddress(bytes: bytes) {
            parts.append("MAC \(address)")
        }
        if let mtu = identity.mtu { parts.append("MTU \(mtu)") }
        parts.append("link \(driver.isLinkUp ? "up" : "down")")
        parts.append(driver.pairCount == 1 ? "1 queue pair" : "\(driver.pairCount) queue pairs")
        let features = String(identity.features.rawValue, radix: 16)
        var lines = ["network device: " + parts.joined(separator: ", "), "features 0x\(features)"]
        if let problem = driver.interruptProblem {
            lines.append("polled without pause, it cannot interrupt: \(problem)")
        }
        return lines
    }
}
