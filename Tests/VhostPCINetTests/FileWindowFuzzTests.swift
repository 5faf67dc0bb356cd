import GuestMemory
import HostSystem
import PCI
import RingSupport
import Testing
import VhostUser
import VirtioSpec
import Virtqueue

@testable import VhostPCINet

/// Peers with any files, and clients, that come and go at any time.
@Suite struct FileWindowFuzzTests {
    private final class Chaos {
        let rig: FileRig
        let files: [FileDescriptor]
        var dice: Dice
        var peer: ScriptedPeer?

        init(seed: UInt64) throws {
            rig = try FileRig()
            dice = Dice(seed)
            files = try (0..<4).map { _ in
                try MemoryFile(name: "peer", size: ScriptedPeer.memorySize).descriptor
            }
        }

        func step() throws {
            switch dice.below(8) {
            case 0, 1: try? connect()
            case 2: peer = nil
            case 3: if rig.driver == nil, rig.transport != nil { try rig.startDriver() }
            case 4: if rig.driver != nil { try rig.loseDriver() }
            default:
                for _ in 0..<3 { try rig.loop.turn(limitMilliseconds: 2) }
            }
            if rig.driver == nil { rig.device.isWindowFixed = false }
        }

        /// One to three of the files; what it says may be refused at any message.
        private func connect() throws {
            peer = nil
            let count = dice.below(6) == 0 ? 3 : 1 + dice.below(2)
            var chosen = files.shuffled(using: &dice).prefix(count)
            let peer = try rig.peer(file: chosen.removeFirst())
            for (index, file) in chosen.enumerated() {
                peer.regions.append(
                    ScriptedPeer.Region(
                        guestAddress: UInt64(index + 1) << 28,
                        file: file,
                        size: ScriptedPeer.memorySize
                    )
                )
            }
            self.peer = peer
            try peer.negotiate()
            try peer.setMemory()
            if dice.below(4) > 0 { try peer.startAll() }
        }
    }

    @Test(arguments: 1...8 as ClosedRange<UInt64>)
    func `VPN-D-28, VPN-D-29: what a client has seen stays, and ON means the peer's own bytes`(
        seed: UInt64
    ) throws {
        let chaos = try Chaos(seed: seed)
        let rig = chaos.rig
        var shown: (layouts: Int, files: [FileIdentity?]) = (0, [])
        for _ in 0..<150 {
            let wasFixed = rig.device.isWindowFixed
            try chaos.step()
            let files = [2, 4].map { rig.device.peerWindowFile($0)?.identity }
            if wasFixed, rig.device.isWindowFixed {
                #expect(rig.layouts == shown.layouts)
                #expect(files == shown.files)
            }
            shown = (rig.layouts, files)
            guard let connection = rig.host.connection, let peer = chaos.peer,
                try !peer.sawClose(), rig.isOn
            else { continue }
            for (index, region) in peer.regions.enumerated() {
                let theirs = try Mapping.file(region.file, offset: 0, length: 4096)
                let byte = UInt8(truncatingIfNeeded: chaos.dice.next())
                unsafe theirs.address.storeBytes(of: byte, toByteOffset: 77, as: UInt8.self)
                let seen = connection.memory.read(region.guestAddress + 77, 1)
                #expect(seen == [byte], "region \(index)")
            }
        }
        let allowed: Set<String> = ["mem/file", "mem/files"]
        #expect(Set(rig.refusals).isSubset(of: allowed))
    }
}
