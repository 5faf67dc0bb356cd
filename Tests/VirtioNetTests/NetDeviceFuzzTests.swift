import FunctionSupport
import GuestMemory
import HostSystem
import NetSupport
import PCI
import RingSupport
import Testing
import Virtio
import VirtioNet
import VirtioSpec
import Virtqueue

/// A driver, a machine and a host that do anything at any time.
@Suite struct NetDeviceFuzzTests {
    private final class Chaos {
        let rig: NetDeviceRig
        var dice: Dice
        var spare: DMAArena?
        var hidden: DMAArena?

        init(seed: UInt64) throws {
            rig = try NetDeviceRig()
            dice = Dice(seed)
        }

        /// Bus mastering is on: the driver switches it on, too.
        var isMaster: Bool {
            let command = try? rig.function.readConfiguration(ConfigurationHeader.command, .word)
            return CommandRegister(rawValue: UInt16(command ?? 0)).contains(.busMaster)
        }

        /// One thing that may fail, and must do no harm.
        func step() throws {
            switch dice.below(15) {
            case 0, 1: try? start()
            case 2: try? rig.transport.reset()
            case 3: try? resetQueue(dice.below(3))
            case 4: try? toggleSpare()
            case 5: try? toggleDriverMemory()
            case 6: try rig.setCommand(isMaster ? .memorySpace : [.memorySpace, .busMaster])
            case 7: try? rig.transport.notifyQueue(dice.below(4))
            case 8: spoilRing()
            case 9: if dice.below(4) == 0 { try loseClient() }
            case 10: rig.device.setLink(up: dice.below(2) == 0)
            case 11: if dice.below(4) == 0 { rig.host.refusals = dice.below(3) }
            case 12: try rig.loop.turn(limitMilliseconds: 1)
            default:
                _ = try? rig.client.send([UInt8](repeating: 7, count: 60 + dice.below(1000)))
                rig.host.echo()
                _ = try? rig.client.frames()
            }
        }

        /// The function is as after power-on, and the next machine switches it on.
        private func loseClient() throws {
            rig.function.endpoint.clientGone()
            try rig.setCommand([.memorySpace, .busMaster])
        }

        func start() throws {
            try restoreMemory()
            let wanted = FeatureBits(rawValue: NetClient.wanted.rawValue & dice.next())
            try rig.client.start(wanted: wanted)
        }

        private func resetQueue(_ queue: Int) throws {
            try rig.transport.resetQueue(queue)
            if dice.below(3) > 0 { try rig.client.restart(queue) }
        }

        private func toggleSpare() throws {
            if let arena = spare {
                spare = nil
                try rig.transport.releaseArena(arena)
            } else {
                spare = try rig.transport.makeArena(size: 4096)
            }
        }

        private func toggleDriverMemory() throws {
            if hidden != nil { return try restoreMemory() }
            guard let arena = rig.client.memory else { return }
            try rig.function.unmapDMA(arena)
            hidden = arena
        }

        private func restoreMemory() throws {
            guard let arena = hidden else { return }
            hidden = nil
            try rig.function.mapDMA(arena)
        }

        /// Some bytes of the driver's own memory become something else.
        private func spoilRing() {
            guard let arena = rig.client.memory else { return }
            for _ in 0..<dice.below(8) {
                let offset = dice.below(arena.mapping.length)
                let byte = UInt8(truncatingIfNeeded: dice.next())
                unsafe arena.mapping.address.storeBytes(
                    of: byte,
                    toByteOffset: offset,
                    as: UInt8.self
                )
            }
            rig.host.echo()
        }

        /// Whatever happened before, a driver that begins anew is served.
        func settle() throws {
            rig.host.refusals = 0
            try rig.setCommand([.memorySpace, .busMaster])
            try restoreMemory()
            rig.client.stop()
            try rig.wait("the end of a thread") {
                rig.host.connection == nil || rig.device.isAttached
            }
            try rig.client.start()
            try rig.wait("rings") { rig.device.isAttached }
            try rig.expectEcho()
        }
    }

    @Test(arguments: 1...12 as ClosedRange<UInt64>)
    func `HI-H13, HI-H15, HI-H23: rings are worked in memory that is there, and at no other time`(
        seed: UInt64
    ) throws {
        let chaos = try Chaos(seed: seed)
        let rig = chaos.rig
        for _ in 0..<6 {
            for _ in 0..<100 {
                try chaos.step()
                guard rig.device.isAttached else { continue }
                let connection = try #require(rig.host.connection)
                #expect(connection.memory === rig.function.base.memory)
                #expect(chaos.isMaster)
                for ring in connection.rings {
                    #expect(connection.memory.read(ring.configuration.deviceArea, 4) != nil)
                }
            }
            try chaos.settle()
        }
    }
}
