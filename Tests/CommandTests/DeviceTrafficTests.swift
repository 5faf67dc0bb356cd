import ArgumentParser
import HostSystem
import NetSupport
import PCI
import Testing
import Virtio
import VirtioSpec

@testable import vhost_pci

/// Two stations wired to each other, and the command's exchange between them.
@Suite struct DeviceTrafficTests {
    private func stations() -> [NetStation] {
        let stations = (1...2).map { NetStation(address: [2, 0, 0, 0, 1, UInt8($0)]) }
        NetStation.wire(stations[0], stations[1])
        return stations
    }

    private func run(
        _ stations: [NetStation],
        frames: UInt64 = 500,
        packetSize: Int? = nil,
        interrupts: Bool = false,
        vectors: Int? = nil,
        report: @escaping (String) -> Void = { _ in }
    ) throws -> TrafficReport {
        var plan = DeviceTraffic.Plan()
        plan.frames = frames
        plan.packetSize = packetSize
        plan.usesInterrupts = interrupts
        plan.timeout = 0.3
        let traffic = try DeviceTraffic(plan, loop: EventLoop(), report: report)
        return try traffic.run(
            stations.enumerated().map { index, station in
                let endpoint = try VirtioPCIFunction(device: station, vectorCount: vectors)
                return ("0000:0\(index):00.0", InProcessFunction(endpoint: endpoint))
            }
        )
    }

    @Test func `every frame crosses, both ways`() throws {
        let stations = stations()
        var lines: [String] = []
        let result = try run(stations) { lines.append($0) }
        #expect(result.verdict == .ok)
        #expect(result.reasons == [])
        #expect(result.directions.map(\.received) == [500, 500])
        #expect(
            result.lines.first?.hasPrefix(
                "0000:00:00.0 -> 0000:01:00.0: ok, 500 sent, 500 received, 0 lost, 0 reordered,"
                    + " 0 damaged"
            ) == true
        )
        #expect(result.lines.count == 2)
        #expect(
            lines.contains { $0.hasPrefix("0000:01:00.0: network device: MAC 02:00:00:00:01:02") }
        )
        #expect(stations.allSatisfy { !$0.isActive })
    }

    @Test(arguments: [60, 64, 1514])
    func `frames of one size cross`(size: Int) throws {
        let result = try run(stations(), packetSize: size)
        #expect(result.verdict == .ok)
        #expect(result.directions.map(\.bytes) == [500 * UInt64(size), 500 * UInt64(size)])
    }

    @Test func `without merged buffers and EVENT_IDX it is the same`() throws {
        let stations = stations()
        for station in stations {
            station.offeredFeatures.subtract([.netMergeableBuffers, .eventIndex])
        }
        #expect(try run(stations).verdict == .ok)
    }

    @Test func `with interrupts each direction counts some`() throws {
        let result = try run(stations(), interrupts: true)
        #expect(result.verdict == .ok)
        #expect(result.directions.allSatisfy { $0.interrupts > 0 })
    }

    @Test func `with interrupts asked for and none there, it fails and says so`() throws {
        let result = try run(stations(), interrupts: true, vectors: 1)
        #expect(result.verdict == .failed)
        #expect(result.directions.map(\.received) == [500, 500])
        #expect(result.reasons.count == 2)
        #expect(result.reasons.allSatisfy { $0.contains("not one interrupt") })
        #expect(result.lines.allSatisfy { $0.contains(": failed, ") })
    }

    @Test func `a wire that loses a frame fails that direction alone`() throws {
        let stations = stations()
        let forward = stations[0].onFrame
        var count = 0
        stations[0].onFrame = { frame in
            count += 1
            if count != 100 { forward?(frame) }
        }
        let result = try run(stations)
        #expect(result.verdict == .failed)
        #expect(result.directions[0].lost >= 1)
        #expect(result.directions[1].lost == 0)
        #expect(result.lines[0].contains(": failed, "))
        #expect(result.lines[1].contains(": ok, "))
    }

    @Test func `a wire that changes, repeats or swaps frames fails`() throws {
        for kind in 0..<3 {
            let stations = stations()
            let forward = stations[0].onFrame
            var held: [UInt8]?
            var count = 0
            stations[0].onFrame = { frame in
                count += 1
                var frame = frame
                if kind == 0, count == 5 { frame[frame.count - 1] ^= 1 }
                if kind == 2, count == 5 {
                    held = frame
                    return
                }
                forward?(frame)
                if kind == 1, count == 5 { forward?(frame) }
                if let late = held {
                    held = nil
                    forward?(late)
                }
            }
            let result = try run(stations)
            #expect(result.verdict == .failed)
            #expect(result.directions[0].damaged == (kind == 0 ? 1 : 0))
            #expect(result.directions[0].reordered == (kind == 0 ? 0 : 1))
        }
    }

    @Test func `frames of others and damaged ones without end are no progress`() throws {
        let stations = stations()
        stations[0].onFrame = { [weak other = stations[1]] frame in
            // Nothing of ours arrives; for each frame sent there come four that are not ours, or cut.
            for bytes in [[UInt8](repeating: 0xff, count: 60), frame.dropLast(20) + [], [], frame] {
                var bytes = bytes
                if bytes.count > 40 { bytes[bytes.count - 1] ^= 0x55 }
                other?.deliver(bytes)
            }
        }
        let started = MonotonicClock.now
        let result = try run(stations, frames: 1 << 40)
        #expect(MonotonicClock.now - started < 5_000_000_000)
        #expect(result.verdict == .failed)
        #expect(result.reasons.first == "0000:01:00.0: nothing has arrived for 0.3 s")
    }

    @Test func `a link that stays down ends the wait with a reason`() throws {
        let stations = stations()
        stations[1].configuration[6] = 0
        let result = try run(stations)
        #expect(result.reasons == ["0000:01:00.0: the link is down"])
        #expect(result.directions.isEmpty)
        #expect(stations.allSatisfy { !$0.isActive })
    }

    @Test func `HI-A48: a device that asks for a reset under traffic ends it by name`() throws {
        let stations = stations()
        let forward = stations[0].onFrame
        var count = 0
        stations[0].onFrame = { frame in
            count += 1
            if count == 100 { stations[1].fail("ring/loop") } else { forward?(frame) }
        }
        let result = try run(stations)
        #expect(result.verdict == .failed)
        #expect(result.reasons.first?.hasPrefix("0000:01:00.0: device/needs-reset") == true)
    }

    @Test func `HI-A40: a device that breaks a ring under traffic ends it by name`() throws {
        let stations = stations()
        stations[0].misdeeds = .returnsUnknown
        let result = try run(stations)
        #expect(result.reasons.first?.hasPrefix("0000:00:00.0: ring/used-range") == true)
    }

    @Test func `a device that cannot be started leaves the other as it was`() throws {
        let stations = stations()
        stations[1].misdeeds = .refusesFeatures
        #expect(throws: VirtioError.self) { _ = try run(stations) }
        #expect(stations.allSatisfy { !$0.isActive })
    }

    @Test(arguments: [
        ["0000:03:00.0"], ["0000:03:00.0", "03:00.0"], ["emulated", "0000:03:00.0"],
        ["0000:03:00.0", "nonsense"], ["0000:03:00.0", "0000:04:00.0", "--frames", "0"],
        ["0000:03:00.0", "0000:04:00.0", "--packet-size", "1515"],
        ["0000:03:00.0", "0000:04:00.0", "--timeout", "0"],
        ["0000:03:00.0", "0000:04:00.0", "--timeout", "nan"],
    ])
    func `a wrong command line is refused`(arguments: [String]) {
        #expect(throws: (any Error).self) {
            try VhostPCI.parseAsRoot(["device", "traffic"] + arguments)
        }
    }
}
