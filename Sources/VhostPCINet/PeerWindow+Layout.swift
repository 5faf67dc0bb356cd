internal import HostSystem
internal import VhostUser

// Rule F: what has to be settled before a function with these windows is shown to anybody.
extension PeerWindow {
    /// Makes sure that the regions can be shown by rule F.
    ///
    /// While the windows are `fixed`, since somebody has seen or mapped them, the files that are
    /// laid out may come and go; others are refused (`mem/file`). Otherwise the windows are laid out
    /// anew where these regions ask for it.
    ///
    /// - Returns: true when they were laid out anew.
    func layOut(for regions: [PeerRegion], in room: WindowLayout.Room, isFixed: Bool)
        throws(Refusal) -> Bool
    {
        if let layout, layout.suits(regions) || isFixed {
            try layout.require(regions)
            return false
        }
        guard !isFixed else {
            throw Refusal("mem/file", "a client has seen the window before there was a peer")
        }
        let next = try WindowLayout(of: regions, in: room)
        guard clear() else {
            throw Refusal("limit/memory", "the window still shows an earlier table")
        }
        if case .made = room {
            var slices: [PeerWindowSlice] = []
            for window in next.windows { slices.append(try slice(for: window)) }
            adopt(slices)
        }
        adopt(next)
        return true
    }

    /// Address space for a window, aligned to the pages of its file.
    private func slice(for window: WindowLayout.Window) throws(Refusal) -> PeerWindowSlice {
        guard let length = Int(exactly: window.size),
            let alignment = Int(exactly: window.pageSize)
        else { throw Refusal("limit/memory", "a window of \(window.size) bytes") }
        do throws(SystemError) {
            return PeerWindowSlice(
                mapping: try Mapping.anonymous(length: length, alignment: alignment),
                bar: window.bar
            )
        } catch {
            throw Refusal("limit/memory", "\(error)")
        }
    }
}
