import Glibc
import HostSystem
import Testing
import VhostUser
import VirtioSpec
import Virtqueue

@testable import vhost_pci

/// `vhost-pci run` in a process of its own, killed and started again under a driver that stays.
@Suite(.serialized) struct KilledBackendTests {
    /// How far a connection gets before the back-end is killed.
    enum Step: CaseIterable {
        case listening, features, memory, oneRing, rings, enabled, traffic
    }

    private func program(_ socket: String) throws -> Program {
        try Program(["run", "--peer", socket, "--mode", "echo", "--idle", "sleep"])
    }

    private func usedIndex(_ rings: NetRings, _ ring: Int) -> UInt16 {
        let area = rings.configurations[ring].deviceArea - NetRings.guestAddress
        return unsafe rings.mapping.address.loadUnaligned(
            fromByteOffset: Int(area) + 2,
            as: UInt16.self
        )
    }

    /// Connects as far as a step; both rings go on where their used indices say.
    private func connect(_ path: String, _ rings: NetRings, to step: Step) throws -> Frontend? {
        guard step != .listening else { return nil }
        let frontend = try Frontend.connect(to: path, wish: FrontendWish(features: .version1))
        guard step != .features else { return frontend }
        try frontend.share([rings.region])
        guard step != .memory else { return frontend }
        for (index, configuration) in rings.configurations.enumerated() {
            try frontend.start(
                FrontendRing(
                    index: index,
                    size: configuration.size,
                    descriptorArea: configuration.descriptorArea,
                    driverArea: configuration.driverArea,
                    deviceArea: configuration.deviceArea,
                    nextAvailable: usedIndex(rings, index)
                )
            )
            if step == .oneRing { return frontend }
        }
        guard step != .rings else { return frontend }
        for index in 0..<2 { try frontend.setEnabled(index, true) }
        try frontend.driverReady()
        return frontend
    }

    /// Sends until as many frames came back, or five seconds; returns how many, none damaged.
    private func exchange(_ frontend: Frontend, _ rings: NetRings, frames: Int) -> Int {
        var (back, damaged, sequence) = (0, 0, UInt64(0))
        let deadline = Deadline(milliseconds: 5000)
        while back < frames, !deadline.hasPassed {
            let frame = TrafficFrame(
                destination: MACAddress(local: 1),
                source: MACAddress(local: 2),
                kind: .payload,
                sequence: sequence,
                received: 0,
                sentAt: 0,
                length: 64
            )
            if rings.canSend(), rings.send(frame) { sequence += 1 }
            if rings.flushSent() { frontend.rings[1]?.kick.signal() }
            let came = rings.receive { if $0 == nil { damaged += 1 } else { back += 1 } }
            if came.wantsKick { frontend.rings[0]?.kick.signal() }
        }
        #expect(damaged == 0)
        return back
    }

    @Test(arguments: Step.allCases)
    func `HI-I2: we are killed at a step and started again, and traffic goes on`(step: Step) throws
    {
        let path = "/tmp/vhost-pci-killed-\(getpid())-\(step)"
        defer { unsafe unlink(path) }
        let rings = try NetRings(features: .version1)
        for round in 0..<2 {
            let program = try program(path)
            let frontend = try connect(path, rings, to: step)
            if step == .traffic, let frontend {
                #expect(exchange(frontend, rings, frames: 500) >= 500, "round \(round)")
            }
            withExtendedLifetime(program) {}
        }
        let program = try program(path)
        let frontend = try #require(try connect(path, rings, to: .traffic))
        #expect(exchange(frontend, rings, frames: 1000) >= 1000)
        #expect(rings.error == nil)
        withExtendedLifetime(program) {}
    }
}
