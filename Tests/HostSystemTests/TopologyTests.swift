import HostSystem
import Testing

@Suite struct TopologyTests {
    @Test func `some CPU is usable and belongs to a node`() throws {
        let cpus = Topology.usableCPUs
        let first = try #require(cpus.first)
        #expect(try Topology.node(ofCPU: first) >= 0)
        #expect(Topology.mayUse(cpu: first))
    }

    @Test(arguments: [-1, 100_000, Int.max])
    func `a CPU that is not there is refused`(cpu: Int) throws {
        #expect(!Topology.mayUse(cpu: cpu))
        #expect(throws: SystemError.self) { try Topology.pinThread(to: cpu) }
    }

    @Test func `a thread runs its body once and is joined`() throws {
        let event = try EventFD()
        let thread = try PollingThread(name: "a-name-longer-than-fifteen") { event.signal() }
        thread.join()
        thread.join()
        #expect(event.drain() == 1)
    }

    @Test func `a page lives on some node`() throws {
        let mapping = try Mapping.anonymous(length: 4096)
        #expect(try unsafe Topology.node(ofAddress: mapping.address) >= 0)
        try Topology.prefer(node: 0, for: mapping)
    }
}
