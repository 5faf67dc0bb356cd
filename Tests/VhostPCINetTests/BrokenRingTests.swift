import HostSystem
import Testing

@testable import VhostPCINet

@Suite struct BrokenRingTests {
    @Test func `HI-D66: a peer is told of a broken pair once a connection, and of no other`() throws
    {
        let rig = try LoopRig(pairs: 2)
        let errors = try (0..<4).map { _ in try EventFD() }
        func connect() throws -> ScriptedPeer {
            let peer = try rig.peer(rings: 4)
            try peer.negotiate()
            try peer.setMemory()
            for (ring, error) in errors.enumerated() {
                try peer.request(.setError, littleEndian(UInt64(ring)), [error.descriptor])
            }
            try peer.startAll()
            try rig.wait("ON") { rig.isOn(rings: 4) }
            return peer
        }
        rig.device.ringsBroke(pair: 1)
        try rig.driver.start()
        var peer: ScriptedPeer? = try connect()
        for _ in 0..<5 { rig.device.ringsBroke(pair: 1) }
        for pair in [-1, 2, .max, .min] { rig.device.ringsBroke(pair: pair) }
        #expect(errors.map { $0.drain() } == [0, 0, 1, 1])
        peer = nil
        try rig.wait("OFF") { rig.host.connection == nil }
        rig.device.ringsBroke(pair: 0)
        peer = try connect()
        rig.device.ringsBroke(pair: 1)
        #expect(errors.map { $0.drain() } == [0, 0, 1, 1])
        withExtendedLifetime(peer) {}
    }
}
