import Glibc
import HostSystem
import PCI
import PollEngine
import Testing
import VFIO
import VhostPCINet
import Virtio

@testable import vhost_pci

/// vhost-pci-net functions as ports: device, driver and worker in this process, the machine behind
/// the window in another.
@Suite(.serialized) struct WindowPortsTests {
    private final class Rig {
        let loop: EventLoop
        let device: VhostPCINetDevice
        let engine: Engine
        let ports: DevicePorts
        let path = "/tmp/vhost-pci-window-\(getpid())-\(MonotonicClock.now)"
        var lines: [String] = []
        /// What a kernel has handed out; the driver alone keeps it.
        weak var function: HandedFunction?

        init() throws {
            loop = try EventLoop()
            device = VhostPCINetDevice(
                name: "vpci0",
                window: PeerWindowSlice(mapping: try Mapping.anonymous(length: 1 << 26)),
                doorbells: try DoorbellTable(count: 2),
                loop: loop
            )
            engine = try Engine(mode: .echo, cores: [Topology.usableCPUs.last ?? 0], idle: .pause)
            var tell: (String) -> Void = { _ in }
            ports = DevicePorts(engine: engine, loop: loop, usesInterrupts: false) {
                name,
                text,
                _ in
                tell("\(name): \(text)")
            }
            tell = { [weak self] line in self?.lines.append(line) }
            let function = HandedFunction(
                InProcessFunction(endpoint: try VirtioPCIFunction(device: device))
            )
            self.function = function
            try ports.add("0000:09:00.0", function)
            try device.listen(at: path)
        }

        deinit { device.close() }

        /// A machine that sends for so long and expects each frame back.
        func machine(seconds: Double) throws -> Program {
            try Program(["peer", "--socket", path, "--duration", "\(seconds)"])
        }

        /// Serves the loop and looks after the devices until something holds, at most 20 s.
        func turn(until condition: () -> Bool) throws -> Bool {
            let deadline = Deadline(milliseconds: 20_000)
            while !condition() {
                guard !deadline.hasPassed else { return false }
                try loop.turn(limitMilliseconds: 5)
                ports.look(engine.snapshot())
            }
            return true
        }

        var port: EngineReport.Port { engine.snapshot().ports[0] }

        func end() throws {
            ports.stop()
            try engine.stop()
            #expect(ports.close() == [])
            #expect(function == nil)
        }
    }

    @Test func `VPN-M-08: the machine behind a function gets every frame back, by one copy`() throws
    {
        let rig = try Rig()
        let machine = try rig.machine(seconds: 0.5)
        var status: Int32?
        #expect(
            try rig.turn {
                status = machine.exitStatus
                return status != nil
            }
        )
        #expect(status == 0)
        let port = rig.port
        #expect(port.kind == .peer)
        #expect(port.received.packets > 100)
        #expect(port.transmitted.packets == port.received.packets)
        #expect(port.copies == port.transmitted.packets)
        #expect(rig.ports.connectionsByName == ["0000:09:00.0": 1])
        #expect(rig.ports.reasons == [])
        #expect(!rig.ports.areAllOut)
        try rig.end()
    }

    @Test func `VPN-M-05: a machine that is killed leaves the port, and the next one takes it`()
        throws
    {
        let rig = try Rig()
        for round in 1...3 {
            let machine = try rig.machine(seconds: 30)
            let before = rig.port.received.packets
            #expect(try rig.turn { rig.port.received.packets > before + 100 })
            machine.kill()
            #expect(try rig.turn { !rig.port.isAttached })
            #expect(rig.ports.connectionsByName == ["0000:09:00.0": UInt64(round)])
        }
        #expect(rig.ports.reasons == [])
        try rig.end()
    }

    @Test func `VPN-M-18: a function that reads as ones is taken out by name`() throws {
        let rig = try Rig()
        let machine = try rig.machine(seconds: 30)
        #expect(try rig.turn { rig.port.received.packets > 100 })
        rig.function?.isGone = true
        #expect(try rig.turn { rig.ports.areAllOut })
        #expect(rig.ports.reasons == ["0000:09:00.0: pci/device-gone"])
        #expect(!rig.port.isAttached)
        machine.kill()
        try rig.end()
    }

    @Test(arguments: [
        (HostFunctionEvent.requested, "vfio/device-requested"),
        (.failed, "vfio/device-error"), (.gone, "pci/device-gone"),
    ])
    func `a function that the kernel wants back is closed, and its machine told`(
        event: HostFunctionEvent,
        id: String
    ) throws {
        let rig = try Rig()
        let machine = try rig.machine(seconds: 30)
        #expect(try rig.turn { rig.port.received.packets > 100 })
        rig.function?.tell?(.line)
        #expect(!rig.ports.areAllOut)
        rig.function?.tell?(event)
        #expect(rig.ports.areAllOut)
        #expect(rig.function == nil)
        #expect(rig.ports.reasons.first?.hasPrefix("0000:09:00.0: \(id)") == true)
        var status: Int32?
        #expect(
            try rig.turn {
                status = machine.exitStatus
                return status != nil
            }
        )
        #expect(status == 1)
        try rig.end()
    }

    @Test func `VPN-M-06: a window without an address fails the run, by name and with a way out`()
        throws
    {
        let rig = try Rig()
        rig.function?.unassigned = 2
        let machine = try rig.machine(seconds: 30)
        #expect(try rig.turn { rig.lines.contains { $0.contains("pci/bar-address") } })
        machine.kill()
        #expect(!rig.port.isAttached && rig.ports.reasons == [])
        rig.ports.stop()
        let reason = try #require(rig.ports.reasons.first)
        #expect(reason.hasPrefix("0000:09:00.0: vpci/bar: pci/bar-address: BAR 2"))
        #expect(reason.contains("pref64-reserve"))
        try rig.end()
    }

    @Test func `VPN-M-06: a window that was refused at first is no failure once it is shown`()
        throws
    {
        let rig = try Rig()
        rig.function?.unassigned = 2
        let first = try rig.machine(seconds: 30)
        #expect(try rig.turn { rig.lines.contains { $0.contains("pci/bar-address") } })
        first.kill()
        rig.function?.unassigned = nil
        #expect(try rig.turn { first.exitStatus != nil })
        // The device hears of the end before the next one comes.
        for _ in 0..<50 { try rig.loop.turn(limitMilliseconds: 5) }
        let second = try rig.machine(seconds: 30)
        #expect(try rig.turn { rig.port.received.packets > 100 })
        second.kill()
        rig.ports.stop()
        #expect(rig.ports.reasons == [])
        try rig.end()
    }

    @Test func `a function that waits for its machine does not keep a run from ending`() throws {
        let rig = try Rig()
        #expect(try rig.turn { rig.lines.contains { $0.contains("ready") } })
        #expect(!rig.port.isAttached)
        try rig.end()
    }
}
