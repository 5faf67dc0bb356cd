import HostSystem
import NetSupport
import PCI
import PollEngine
import Testing
import VFIO
import Virtio

@testable import vhost_pci

/// Network devices as ports of an engine whose worker runs, device and driver in this process.
@Suite(.serialized) struct DevicePortsTests {
    private final class Rig {
        let stations: [NetStation]
        let functions: [InProcessFunction]
        let loop: EventLoop
        let engine: Engine
        let ports: DevicePorts
        var lines: [String] = []
        /// What came out of each station.
        var frames: [[[UInt8]]]

        init(_ mode: ForwardingMode, stations count: Int = 1, idle: IdleStrategy = .pause) throws {
            stations = (0..<count).map { NetStation(address: [2, 0, 0, 0, 1, UInt8($0)]) }
            functions = try stations.map {
                InProcessFunction(endpoint: try VirtioPCIFunction(device: $0))
            }
            loop = try EventLoop()
            frames = Array(repeating: [], count: count)
            engine = try Engine(mode: mode, cores: [Topology.usableCPUs.last ?? 0], idle: idle)
            var tell: (String) -> Void = { _ in }
            ports = DevicePorts(engine: engine, loop: loop, usesInterrupts: idle == .sleep) {
                name,
                text,
                _ in
                tell("\(name): \(text)")
            }
            tell = { [weak self] line in self?.lines.append(line) }
            for (index, station) in stations.enumerated() {
                station.onFrame = { [weak self] frame in self?.frames[index].append(frame) }
                try ports.add("0000:0\(index):00.0", functions[index])
            }
        }

        /// Serves doorbells and looks after the devices until something holds, at most 5 s.
        func turn(until condition: () -> Bool) throws -> Bool {
            let deadline = Deadline(milliseconds: 5000)
            while !condition() {
                guard !deadline.hasPassed else { return false }
                try loop.turn(limitMilliseconds: 1)
                ports.look(engine.snapshot())
            }
            return true
        }

        func end() throws {
            try engine.stop()
            #expect(ports.close() == [])
            #expect(stations.allSatisfy { !$0.isActive })
        }
    }

    /// A frame from one station's wire to another's.
    private func frame(to: UInt8, from: UInt8, _ number: Int) -> [UInt8] {
        [2, 0, 0, 0, 9, to, 2, 0, 0, 0, 9, from, 0x88, 0xb5]
            + (0..<50).map { UInt8(truncatingIfNeeded: $0 &+ number) }
    }

    @Test(arguments: [IdleStrategy.pause, .sleep])
    func `an echo sends every frame back to the device it came from`(idle: IdleStrategy) throws {
        let rig = try Rig(.echo, idle: idle)
        for number in 0..<300 {
            rig.stations[0].deliver(frame(to: 1, from: 2, number))
            #expect(try rig.turn { rig.frames[0].count == number + 1 })
        }
        let expected = (0..<300).map { frame(to: 2, from: 1, $0) }
        #expect(rig.frames[0] == expected)
        try rig.end()
        let port = rig.engine.snapshot().ports[0]
        #expect(port.kind == .device)
        #expect(port.received.packets == 300)
        #expect(port.transmitted.packets == 300)
        #expect(port.drops == [:])
        #expect(rig.ports.reasons == [])
        #expect(rig.lines[0].hasPrefix("0000:00:00.0: network device: MAC 02:00:00:00:01:00"))
    }

    @Test func `a worker that sleeps is woken by the device's interrupt`() throws {
        let rig = try Rig(.sink, idle: .sleep)
        #expect(
            try rig.turn { rig.engine.snapshot().workers[0].sleeps > 2 }
        )
        rig.stations[0].deliver(frame(to: 1, from: 2, 0))
        #expect(try rig.turn { rig.engine.snapshot().ports[0].received.packets == 1 })
        try rig.end()
    }

    @Test func `a switch carries frames between two devices`() throws {
        let rig = try Rig(.switch, stations: 2)
        for number in 0..<200 {
            let there = frame(to: 1, from: 2, number)
            let back = frame(to: 2, from: 1, number)
            rig.stations[0].deliver(there)
            #expect(try rig.turn { rig.frames[1].count == number + 1 })
            rig.stations[1].deliver(back)
            #expect(try rig.turn { rig.frames[0].count == number + 1 })
        }
        #expect(rig.frames[1].last == frame(to: 1, from: 2, 199))
        #expect(rig.frames[0].last == frame(to: 2, from: 1, 199))
        try rig.end()
    }

    @Test func `a source fills the device, a sink empties it`() throws {
        let source = try Rig(.source)
        #expect(try source.turn { source.frames[0].count >= 1000 })
        #expect(source.frames[0].allSatisfy { $0.count == 64 })
        try source.end()
        let sink = try Rig(.sink)
        for number in 0..<1000 { sink.stations[0].deliver(frame(to: 1, from: 2, number)) }
        #expect(try sink.turn { sink.engine.snapshot().ports[0].consumed == 1000 })
        try sink.end()
    }

    @Test func `HI-A48: a device that needs a reset is taken out by name, the other goes on`()
        throws
    {
        let rig = try Rig(.echo, stations: 2)
        rig.stations[0].fail("ring/loop")
        #expect(try rig.turn { !rig.stations[0].isActive })
        #expect(rig.ports.reasons.count == 1)
        #expect(rig.ports.reasons[0].hasPrefix("0000:00:00.0: device/needs-reset"))
        #expect(!rig.ports.areAllOut)
        rig.stations[1].deliver(frame(to: 1, from: 2, 0))
        #expect(try rig.turn { rig.frames[1].count == 1 })
        let report = rig.engine.snapshot()
        #expect(!report.ports[0].isAttached)
        #expect(report.ports[1].isAttached)
        try rig.end()
    }

    @Test func `HI-A48: frames that the device was given and has not taken are counted`() throws {
        let rig = try Rig(.source)
        // Nobody turns the loop: no doorbell is served, and the transmit ring fills up.
        let deadline = Deadline(milliseconds: 5000)
        while rig.engine.snapshot().ports[0].transmitted.packets < 256, !deadline.hasPassed {}
        rig.stations[0].fail("ring/loop")
        rig.ports.look(rig.engine.snapshot())
        #expect(rig.ports.areAllOut)
        #expect(rig.engine.snapshot().ports[0].unfinished == 256)
        #expect(rig.lines.last?.contains("the last 256 frames") == true)
        try rig.end()
    }

    @Test func `HI-A40: a device that breaks a ring is taken out by the ring's id`() throws {
        let rig = try Rig(.echo, stations: 2)
        rig.stations[0].misdeeds = .returnsUnknown
        rig.stations[0].deliver(frame(to: 1, from: 2, 0))
        #expect(try rig.turn { !rig.stations[0].isActive })
        #expect(rig.ports.reasons.count == 1)
        #expect(rig.ports.reasons.first?.hasPrefix("0000:00:00.0: ring/used-range") == true)
        #expect(rig.engine.snapshot().ports[0].ringErrors == ["ring/used-range": 1])
        rig.stations[1].deliver(frame(to: 1, from: 2, 0))
        #expect(try rig.turn { rig.frames[1].count == 1 })
        try rig.end()
    }

    @Test func `a device that cannot be started leaves no port`() throws {
        let rig = try Rig(.echo)
        let mute = NetStation(address: [2, 0, 0, 0, 1, 9])
        mute.misdeeds = .refusesFeatures
        let function = InProcessFunction(endpoint: try VirtioPCIFunction(device: mute))
        #expect(throws: VirtioError.self) { try rig.ports.add("0000:09:00.0", function) }
        #expect(rig.engine.snapshot().ports.count == 1)
        #expect(!mute.isActive)
        try rig.end()
    }

    @Test(arguments: [
        (HostFunctionEvent.requested, "vfio/device-requested"),
        (.failed, "vfio/device-error"), (.gone, "pci/device-gone"),
    ])
    func `a device that the kernel wants back is taken out and closed`(
        event: HostFunctionEvent,
        id: String
    ) throws {
        let rig = try Rig(.echo)
        let station = NetStation(address: [2, 0, 0, 0, 1, 9])
        var frames = 0
        station.onFrame = { _ in frames += 1 }
        var function: HandedFunction? = HandedFunction(
            InProcessFunction(endpoint: try VirtioPCIFunction(device: station))
        )
        weak let kept = function
        try rig.ports.add("0000:09:00.0", try #require(function))
        function = nil
        station.deliver(frame(to: 1, from: 2, 0))
        #expect(try rig.turn { frames == 1 })
        kept?.tell?(.line)
        #expect(station.isActive)
        kept?.tell?(event)
        #expect(!station.isActive)
        #expect(kept == nil)
        #expect(rig.ports.reasons.count == 1)
        #expect(rig.ports.reasons.first?.hasPrefix("0000:09:00.0: \(id)") == true)
        // The other one goes on.
        rig.stations[0].deliver(frame(to: 1, from: 2, 0))
        #expect(try rig.turn { rig.frames[0].count == 1 })
        try rig.end()
    }

    @Test func `a link that goes down is told, and is no reason to fail`() throws {
        let rig = try Rig(.sink)
        rig.stations[0].setLink(up: false)
        #expect(try rig.turn { rig.lines.contains("0000:00:00.0: link down") })
        #expect(rig.ports.reasons == [])
        try rig.end()
    }
}
