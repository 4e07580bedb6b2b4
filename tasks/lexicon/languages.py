"""Words that tell the language of a short caption.

A caption of five words is too short for statistics of letters alone ("cercle rouge, fond blanc" is
taken for English by both py3langid and CLD2). The commonest words decide better: function words,
colours, and for English the things that captions are about. A word stands under a language only if
it speaks for that language against the others here: "in", "die" or "man" speak for none.
"""

from __future__ import annotations

from typing import Final

from tasks.lexicon import words

COMMON: Final[dict[str, frozenset[str]]] = {
    "en": words(
        """
        the no not do does of with and by at from this that these those there here is are was were
        has have had been being its it his her their our your my he she they we you who which what
        when where while as for to into onto over under above below behind beside between near next
        around across through against along inside outside towards after before during without each
        both all some any many few several other another more most very up down out off away
        together only one two three four five six seven eight nine ten first second third last half
        pair couple group set red green blue yellow orange purple pink brown black white grey gray
        cyan magenta violet turquoise teal beige golden silver dark light bright pale colored
        coloured colorful colourful circle square triangle cross star hexagon pentagon rectangle
        diamond ellipse oval disc disk shape shapes ring heart arrow line dot dots stripe stripes
        cube sphere cone spiral crescent large small big little tiny huge tall short long wide
        narrow round flat high low thick thin giant medium middle center centre left right top
        bottom upper lower side edge corner front back background foreground surface backdrop photo
        photograph picture image painting drawing sketch illustration portrait view map diagram
        chart poster sign logo icon symbol flag cartoon detail scene landscape skyline close closeup
        aerial vintage old new young ancient modern traditional beautiful pretty fresh hot cold wet
        dry empty full open closed broken wooden woman women girl girls boy boys child children baby
        people person crowd men's women's family friends player players team worker workers soldier
        soldiers king queen president doctor teacher student farmer rider singer dancer face eye
        eyes head hair hands feet foot body skin smile tone beard cat cats dog dogs horse horses cow
        cows sheep goat pig bird birds fish bear lion tiger elephant monkey rabbit mouse fox wolf
        deer duck chicken owl eagle frog snake turtle shark whale butterfly bee spider puppy kitten
        animal animals tree trees flower flowers leaf leaves grass plant plants rose wood woods
        mountain mountains hill valley river lake sea ocean beach island sky cloud clouds sun moon
        stars snow ice rain storm rainbow sunset sunrise night day morning evening spring summer
        autumn field meadow desert rock rocks stone cliff waterfall water fire smoke earth house
        houses home building buildings tower bridge church castle palace temple street road city
        town village wall window windows door roof stairs kitchen bedroom bathroom room office
        school shop store market station factory farm barn fence gate yard harbour harbor lighthouse
        car cars truck bus train bicycle bike motorcycle boat boats ship plane airplane aircraft
        helicopter rocket wheel table chair bed couch desk shelf lamp clock mirror box bag bottle
        cup glass plate bowl knife fork spoon book books paper pen pencil phone computer keyboard
        screen camera ball toy doll hat shirt dress shoes shoe boots coat jacket necklace watch key
        umbrella guitar drum food bread cake cheese meat egg eggs rice soup salad fruit apple banana
        grapes lemon strawberry tomato potato carrot onion pepper coffee tea milk wine beer juice
        chocolate cream sugar sitting standing walking running riding holding wearing looking
        playing eating drinking sleeping flying swimming driving jumping smiling working reading
        writing cooking dancing surrounded covered filled made showing shows shown seen parked
        hanging lying leaning floating growing shining facing
        """
    ),
    "de": words(
        """
        der das den dem des ein eine einen einem einer eines und mit auf im am vom zum zur von bei
        aus für über unter vor hinter neben zwischen ist sind nach durch rot rote roter rotes roten
        grün grüne grüner grünes grünen blau blaue blauer blaues blauen gelb gelbe gelber gelbes
        gelben schwarz schwarze schwarzer schwarzes schwarzen schwarzem weiß weiße weißer weißes
        weißen weißem weiss grau graue graues grauer grauen grauem lila braun groß große großer
        großes großen kleine kleiner kleines kleinen kreis quadrat dreieck kreuz hintergrund grund
        bild foto links rechts
        """
    ),
    "fr": words(
        """
        le la les un une des du au aux et avec dans sur sous par pour est sont qui que entre devant
        derrière à ses leur cette ces chez vers sans rouge rouges vert verte verts vertes bleu bleue
        bleus bleues jaune jaunes noir noire noirs noires blanc blanche blancs blanches gris grise
        violette brun brune grand grande grands grandes petit petite petits petites cercle carré
        croix fond image gauche droite dessus dessous
        """
    ),
    "es": words(
        """
        el la los las un una unos unas del al y con en sobre por para es son está esta entre delante
        detrás debajo encima desde hasta sin su sus que rojo roja rojos rojas verdes azul azules
        amarillo amarilla amarillos negro negra negros negras blanco blanca blancos blancas gris
        morado morada marrón gran pequeño pequeña pequeños pequeñas círculo cuadrado triángulo cruz
        fondo imagen foto izquierda derecha
        """
    ),
    "it": words(
        """
        il lo gli un uno una del della dello dei degli delle al alla allo ai nel nella nello nei sul
        sulla sullo e di con su per tra fra che è sono sopra sotto davanti dietro dal dalla rosso
        rossa rossi rosse blu giallo gialla nero nera neri nere bianco bianca bianchi bianche grigio
        grigia viola grandi piccolo piccola piccoli cerchio quadrato triangolo croce sfondo immagine
        sinistra destra
        """
    ),
    "pt": words(
        """
        o os um uma uns umas do da dos das ao à no na nos nas e com em sobre por para é são entre
        atrás abaixo acima desde até sem que vermelho vermelha verdes azuis amarelo amarela preto
        preta pretos pretas branco branca brancos brancas cinza roxo roxa marrom pequeno pequena
        pequenos grande círculo quadrado triângulo fundo imagem foto esquerda direita
        """
    ),
    "nl": words(
        """
        de het een van op met voor naar uit bij aan tussen onder boven achter naast zijn wordt deze
        dit en rode groene blauw blauwe geel gele zwart zwarte wit witte grijs grijze paars paarse
        bruin bruine grote klein kleine cirkel vierkant driehoek kruis achtergrond afbeelding rechts
        """
    ),
    "sv": words(
        """
        en ett och på av med för till från som är under över bakom mellan framför vid den det röd
        röda rött grön gröna grönt blå blåa blått gul gula gult svart svarta vit vita vitt grå lila
        brun stor stora stort liten litet lilla cirkel kvadrat kors bakgrund vänster höger
        """
    ),
    "da": words(
        """
        en et og på af med til fra som er under over bag mellem foran ved den det rød røde rødt grøn
        grønne grønt blå blåt gul gule gult sort sorte hvid hvide hvidt grå lilla brun stor store
        stort lille firkant trekant kryds baggrund venstre højre
        """
    ),
    "no": words(
        """
        en et og på av med til fra som er under over bak mellom foran ved den det rød røde rødt
        grønn grønne blå gul gule gult svart svarte hvit hvite hvitt grå lilla brun stor store stort
        liten sirkel firkant trekant kors bakgrunn venstre høyre
        """
    ),
    "pl": words(
        """
        na w z i do od po pod nad przed przy za dla jest są oraz ze czerwony czerwona czerwone
        zielony zielona zielone niebieski niebieska niebieskie żółty żółta żółte czarny czarna
        czarne czarnym biały biała białe białym szary duży duża duże mały mała małe koło kwadrat
        trójkąt krzyż tle tło
        """
    ),
    "cs": words(
        """
        na v ve z ze s se a i do od po pod nad před při za pro je jsou červený červená červené
        zelený zelená zelené modrý modrá modré žlutý černý černá černém bílý bílá bílé bílém velký
        velká velké malý malá malé kruh čtverec trojúhelník kříž pozadí
        """
    ),
    "fi": words(
        """
        ja on sekä päällä alla edessä takana vieressä joka jossa punainen vihreä sininen keltainen
        musta mustalla valkoinen valkoisella harmaa suuri iso pieni ympyrä neliö kolmio risti
        taustalla tausta
        """
    ),
    "hu": words(
        """
        a az egy és van alatt felett mellett előtt mögött közötti piros vörös zöld kék sárga fekete
        fehér szürke nagy kis kör négyzet háromszög kereszt háttér háttéren
        """
    ),
    "ro": words(
        """
        un o și pe cu din în la de lângă sub deasupra roșu roșie verde albastru albastră galben
        negru neagră alb albă gri mare mic mică cerc pătrat triunghi cruce fundal
        """
    ),
    "tr": words(
        """
        bir ve ile için üzerinde altında önünde arkasında yanında kırmızı yeşil mavi sarı siyah
        beyaz gri büyük küçük daire kare üçgen haç zemin arka plan planda
        """
    ),
    "id": words(
        """
        di dan yang dengan dari untuk pada dalam atas bawah depan belakang sebuah seekor seorang ini
        itu merah hijau biru kuning hitam putih abu besar kecil lingkaran kotak segitiga latar
        """
    ),
    "vi": words(
        """
        một của và trên dưới với trong màu nền hình đỏ xanh vàng đen trắng lớn nhỏ tròn vuông
        """
    ),
}


def speaking_for(languages: tuple[str, ...]) -> tuple[frozenset[str], frozenset[str]]:
    """The words that speak for the given languages, and those that speak for others only."""
    ours = frozenset[str]().union(*(COMMON.get(language, frozenset()) for language in languages))
    others = (words for language, words in COMMON.items() if language not in languages)
    return ours, frozenset[str]().union(*others) - ours
