import CSystemShims
import Glibc
import GuestMemory
import HostSystem
import NetSupport
import PCI
import Testing
import Virtio
import VirtioSpec
import Virtqueue

@testable import vhost_pci

/// Machines that cut the memory under a device of the daemon.
@Suite(.serialized) struct ServedMemoryTests {
    /// A function of another process, and arenas that can be cut.
    private final class Machine: PCIFunction {
        let base: any PCIFunction
        private var guards: [GuardedMapping] = []
        private var files: [FileDescriptor] = []

        init(_ base: any PCIFunction) { self.base = base }

        /// Files without seals; what is missing of them shows zeros here.
        func makeArena(size: Int) throws(PCIError) -> DMAArena {
            do throws(SystemError) {
                let file = FileDescriptor(
                    owning: try checked(unsafe shim_memfd_create("cuttable", 0), "make a file")
                )
                let length = (size + 4095) & ~4095
                try checked(shim_set_file_size(file.rawValue, UInt64(length)), "size a file")
                let memory = MemoryFile(adopting: file, size: length)
                let mapping = try memory.map()
                guards.append(try GuardedMapping(mapping))
                files.append(file)
                let arena = DMAArena(
                    file: memory,
                    mapping: mapping,
                    deviceAddress: 0x1_0000_0000 * UInt64(files.count)
                )
                try hand(arena)
                return arena
            } catch {
                throw .system(error)
            }
        }

        private func hand(_ arena: DMAArena) throws(SystemError) {
            do throws(PCIError) { try base.mapDMA(arena) } catch {
                throw SystemError("\(error)", .noMemory)
            }
        }

        func releaseArena(_ arena: DMAArena) throws(PCIError) { try base.unmapDMA(arena) }

        func cut() throws {
            for file in files {
                try checked(shim_set_file_size(file.rawValue, 0), "cut a file")
            }
        }

        func readConfiguration(_ offset: Int, _ width: AccessWidth) throws(PCIError) -> UInt32 {
            try base.readConfiguration(offset, width)
        }
        func writeConfiguration(
            _ offset: Int,
            _ width: AccessWidth,
            _ value: UInt32
        ) throws(PCIError) {
            try base.writeConfiguration(offset, width, value)
        }
        func barSize(_ bar: Int) throws(PCIError) -> UInt64 { try base.barSize(bar) }
        func readRegister(
            _ bar: Int,
            _ offset: UInt64,
            _ width: AccessWidth
        ) throws(PCIError) -> UInt32 { try base.readRegister(bar, offset, width) }
        func writeRegister(
            _ bar: Int,
            _ offset: UInt64,
            _ width: AccessWidth,
            _ value: UInt32
        ) throws(PCIError) { try base.writeRegister(bar, offset, width, value) }
        func mapWindow(
            _ bar: Int,
            offset: UInt64,
            size: UInt64
        ) throws(PCIError) -> BARWindow {
            try base.mapWindow(bar, offset: offset, size: size)
        }
        func doorbell(
            _ bar: Int,
            _ offset: UInt64,
            value: UInt16
        ) throws(PCIError) -> Doorbell { try base.doorbell(bar, offset, value: value) }
        func connectInterrupt(_ vector: Int, to event: EventFD?) throws(PCIError) {
            try base.connectInterrupt(vector, to: event)
        }
        var interruptVectorCount: Int {
            get throws(PCIError) { try base.interruptVectorCount }
        }
        func mapDMA(_ arena: DMAArena) throws(PCIError) { try base.mapDMA(arena) }
        func unmapDMA(_ arena: DMAArena) throws(PCIError) { try base.unmapDMA(arena) }
        func reset() throws(PCIError) { try base.reset() }
    }

    private func wait(
        _ what: String,
        location: SourceLocation = #_sourceLocation,
        until condition: () throws -> Bool
    ) throws {
        let deadline = Deadline(milliseconds: 10_000)
        while try !condition() {
            guard !deadline.hasPassed else {
                Issue.record("no \(what)", sourceLocation: location)
                return
            }
            usleep(5000)
        }
    }

    /// A frame is taken by the daemon's worker.
    private func expectTaken(
        _ client: NetClient,
        location: SourceLocation = #_sourceLocation
    ) throws {
        #expect(try client.send([UInt8](repeating: 0xff, count: 64)), sourceLocation: location)
        try wait("worker", location: location) { try client.unsent == 0 }
    }

    @Test func `HI-I11: a net device says that its driver's memory was cut, and works again`()
        throws
    {
        let daemon = try ServedDaemon("cut", "name: a, kind: net, vfio-user: @/a.sock")
        let base = try DeviceTarget.parse(daemon.target("a")).open(unsafeNoIOMMU: false)
        let machine = Machine(base)
        let transport = try PCITransport(function: machine)
        let client = NetClient(transport)
        for round in 1...3 as ClosedRange<Int64> {
            try client.start()
            try expectTaken(client)
            try machine.cut()
            try wait("NEEDS_RESET") { try transport.status().contains(.needsReset) }
            let shown = try daemon.call("device", "show", "a").members
            #expect(shown?["refused"]?.members?["mem/truncated"] == .integer(round))
            let why = try #require(shown?["last_refusal"]?.text)
            #expect(why.contains("cuttable") && why.contains("reset the device"))
            #expect(shown?["phase"] == .text("running"))
        }
        try client.start()
        try expectTaken(client)
        client.stop()
    }
}
